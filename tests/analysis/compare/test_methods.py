from moka_peft.analysis.compare.methods import PAPER_TABLE, VARIANTS
from moka_peft.training.recipe_adapter import Adapter


def test_every_method_of_a_recipe_is_a_variant_under_its_own_name():
    methods = Adapter.model_fields["method"].annotation.__args__
    assert set(methods) <= set(VARIANTS)
    assert all(VARIANTS[method].adapter["method"] == method for method in methods)


def test_the_papers_table_holds_variants_once():
    assert set(PAPER_TABLE) <= set(VARIANTS) and len(set(PAPER_TABLE)) == 12


def test_no_two_variants_are_the_same():
    assert len({str(variant.adapter) for variant in VARIANTS.values()}) == len(VARIANTS)
    assert len({variant.title for variant in VARIANTS.values()}) == len(VARIANTS)
