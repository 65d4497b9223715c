import pytest

from moka_peft.analysis.compare.cells import identity
from moka_peft.analysis.compare.grid import Wanted, plan_grid
from moka_peft.training import RecipeError, load_recipe

DECIDING = (
    "seed=1", "adapter.r=2", "adapter.cross_scale=0.5", "training.steps=4", "training.num_threads=2",
    "training.learning_rate=2e-2", "data.train.size=21", "data.eval.size=7", "evaluation.max_new_tokens=3",
    "evaluation.batch_size=5", "train_projectors=false", "model.dtype=bfloat16", "training.packing=true",
)  # fmt: skip
WITHOUT_EFFECT = (
    "output_dir=elsewhere", "resume=true", "overwrite=true", "push_to_hub=me/it", "evaluation.before=false",
    "training.save_steps=7", "training.keep_checkpoints=5", "training.num_workers=1", "training.report_to=[wandb]",
)  # fmt: skip


def test_a_cell_for_each_method_and_seed_and_one_seed_before_the_next(plan):
    cells = plan(seeds=2).cells
    assert [(cell.variant, cell.seed) for cell in cells] == [("lora", 0), ("moka", 0), ("lora", 1), ("moka", 1)]
    assert [cell.recipe.seed for cell in cells] == [0, 0, 1, 1]
    assert [cell.recipe.adapter.method for cell in cells] == ["lora", "moka", "lora", "moka"]
    assert cells[0].name == f"lora-r4-seed0-{cells[0].identity}"
    assert cells[0].settings == {"adapter.method": "lora"} and cells[1].settings == {}
    assert cells[0].kind == cells[2].kind != cells[1].kind


def test_methods_have_numbers_of_seeds_of_their_own(recipe):
    [table] = plan_grid(recipe, Wanted(("lora", "moka"), {"lora": 3, "moka": 1}, ("rank",))).tables
    assert [len(row.cells) for row in table.rows] == [3, 1]


def test_tables_share_runs(plan):
    grid = plan(equal=("rank", "parameters"), methods=("lora", "moka"), vary={"adapter.cross_scale": [0.5, 1.0]})
    rank, axis, parameters = grid.tables
    assert [table.name for table in grid.tables] == ["equal rank", "adapter.cross_scale", "equal parameters"]
    moka = rank.rows[1].cells[0]
    assert parameters.rows[1].cells == (moka,)  # its own parameters are the budget
    assert axis.rows[2].cells[0].identity == moka.identity  # 1.0 is what the recipe has
    assert len(grid.cells) == 4  # LoRA at two ranks, MokA with two scales


def test_the_same_run_has_one_identity_in_every_comparison(plan):
    [row] = plan("adapter.r=2", "adapter.lora_alpha=4", methods=("lora",), baseline="lora").tables[0].rows
    [other] = plan(methods=("lora",), equal=(), vary={"adapter.r": [2]}).tables[0].rows
    assert row.cells[0].identity == other.cells[0].identity and row.cells[0].settings != other.cells[0].settings


@pytest.mark.parametrize("setting", DECIDING)
def test_what_decides_a_result_changes_the_identity(recipe_file, setting):
    plain, changed = (identity(load_recipe(recipe_file, settings).settings()) for settings in ([], [setting]))
    assert plain != changed


@pytest.mark.parametrize("setting", WITHOUT_EFFECT)
def test_nothing_else_changes_it(recipe_file, setting):
    plain, changed = (identity(load_recipe(recipe_file, settings).settings()) for settings in ([], [setting]))
    assert plain == changed


def test_a_method_gets_only_the_keys_that_it_knows(plan):
    lora, moka = plan("adapter.cross_scale=0.5", "adapter.lora_dropout=0.1").cells
    assert (lora.recipe.adapter.cross_scale, moka.recipe.adapter.cross_scale) == (1.0, 0.5)
    assert lora.recipe.adapter.lora_dropout == moka.recipe.adapter.lora_dropout == 0.1


def test_runs_neither_score_before_training_nor_save_on_the_way_unless_told(plan, tmp_path, recipe_file):
    [cell, _] = plan().cells
    assert cell.recipe.evaluation.before is False and cell.recipe.training.save_steps == 1
    untold = tmp_path / "recipe.yaml"
    untold.write_text(recipe_file.read_text().replace("save_steps: 1, ", ""))
    [cell] = plan_grid(load_recipe(untold), Wanted(("lora",), {"lora": 1}, ("rank",))).cells
    assert cell.recipe.training.save_steps > cell.recipe.training.steps


def test_an_axis_leaves_out_whom_it_means_nothing_to_but_the_baseline(plan):
    grid = plan(methods=("lora", "dora", "moka"), equal=(), vary={"adapter.cross_scale": [0, 2]})
    [table] = grid.tables
    assert [(row.variant, row.value) for row in table.rows] == [("lora", None), ("moka", 0), ("moka", 2)]
    assert grid.notes == ("adapter.cross_scale means nothing to DoRA: not in its table.",)
    assert [cell.name.rsplit("-", 2)[0] for cell in grid.cells] == [
        "lora-r4",
        "moka-r4-cross_scale=0",
        "moka-r4-cross_scale=2",
    ]


def test_alpha_goes_with_a_varied_rank(plan):
    cells = plan(methods=("lora",), equal=(), vary={"adapter.r": [2, 16]}).cells
    assert [(cell.recipe.adapter.r, cell.recipe.adapter.lora_alpha) for cell in cells] == [(2, 4), (16, 32)]


def test_a_key_of_any_section_is_an_axis(plan):
    cells = plan(methods=("moka",), equal=(), baseline="moka", vary={"data.train.size": [10, 20]}).cells
    assert [cell.recipe.data.train.size for cell in cells] == [10, 20]


def test_a_long_value_fits_into_the_name_of_a_folder(plan):
    groups = [["Audio"] * 60, ["Audio"] * 61]
    one, other = plan(methods=("moka",), equal=(), baseline="moka", vary={"data.train.groups": groups}).cells
    assert (
        len(one.name.encode()) < 100 and one.name.startswith("moka-r4-groups=_Audio_Audio") and one.name != other.name
    )


def test_all_that_is_wrong_comes_at_once(plan):
    vary = {"evaluation.metric": ["wer"], "seed": [1, 2], "adapter.rnk": [3]}
    vary = {"adapter.r": [0], "training.learning_rate": [-1.0, 1e-3], **vary}
    with pytest.raises(RecipeError) as caught:
        plan("data.eval=null", vary=vary)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "`--vary evaluation.metric` is no axis. Scores of two metrics do not compare. Choose one",
        "`--vary seed` is no axis. Use `--seeds`.",
        "`data.eval` is missing",
        "`--vary adapter.r=0`",
        "`--vary training.learning_rate=-1.0`",
        "`--vary adapter.rnk=3`",
    ]
    assert "Did you mean `adapter.r`" in caught.value.problems[-1] or "not a recipe key" in caught.value.problems[-1]


def test_an_axis_that_no_method_knows_is_refused(plan):
    with pytest.raises(RecipeError, match="`--vary adapter.cross_scale`: none of the methods knows it"):
        plan(methods=("lora", "dora"), vary={"adapter.cross_scale": [1, 2]})


def test_a_rank_of_its_own_is_refused_along_ranks(plan):
    with pytest.raises(RecipeError, match="`adapter.rank_pattern` fixes ranks, which `--vary adapter.r` must change"):
        plan("adapter.rank_pattern={q_proj: 2}", vary={"adapter.r": [2, 8]})


@pytest.mark.parametrize("vary", [{"adapter.cross_scale": [1, 0.5, 1.0]}, {"adapter.r": [2, 2]}])
def test_values_of_an_axis_that_are_one_run_are_refused(plan, vary):
    [(key, values)] = vary.items()
    with pytest.raises(RecipeError) as caught:
        plan(methods=("moka",), equal=(), baseline="moka", vary=vary)
    assert caught.value.problems == [f"`--vary {key}`: {values[0]} and {values[-1]} are the same run. Expected others."]


@pytest.mark.parametrize("setting, message", [
    ("push_to_hub=me/it", "`push_to_hub` has no meaning in a comparison"),
    ("adapter.rank_pattern={q_proj: 2}", "`adapter.rank_pattern` fixes ranks"),
])  # fmt: skip
def test_recipes_that_cannot_be_compared_are_refused(plan, setting, message):
    with pytest.raises(RecipeError, match=message):
        plan(setting, equal=("rank", "parameters"))
