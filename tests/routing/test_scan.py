"""route(): turns, instruction and media read from token ids."""

import pytest
import torch

from moka_peft.routing import Routing, RoutingSpec, route


def routed(spec, ids, mask=None, **options):
    routing = route(torch.tensor([ids]), spec, None if mask is None else torch.tensor([mask]), **options)
    return routing.modality[0].tolist(), routing.turn[0].tolist(), routing.open_turn[0].item()


SPEC = RoutingSpec(
    placeholders={"visual": (50, 51), "audio": (60,)},
    user_open=((1, 2), (1, 2, 9)),
    user_close=((3, 4), (3, 5)),
    skip=(7, (8, 8), ((10,), (11,))),
)


def test_two_turns_with_media_first_and_text_first():
    ids = [0, 1, 2, 50, 51, 20, 21, 3, 4, 30, 1, 2, 22, 60, 3, 4, 31]
    modality, turn, open_turn = routed(SPEC, ids)
    assert modality == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]
    assert turn == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0]
    assert open_turn == 0


def test_longer_delimiter_variant_is_not_instruction():
    assert routed(SPEC, [1, 2, 9, 20, 3, 5])[1] == [0, 0, 0, 1, 0, 0]


def test_half_a_delimiter_is_instruction():
    assert routed(SPEC, [1, 2, 3, 20, 3, 4])[1] == [0, 0, 1, 1, 0, 0]


def test_skips_an_id_a_sequence_and_a_block():
    assert routed(SPEC, [1, 2, 7, 20, 8, 8, 8, 21, 3, 4])[1] == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert routed(SPEC, [1, 2, 8, 20, 10, 21, 50, 22, 11, 23, 3, 4])[1] == [0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 0]


def test_block_that_nothing_closes_in_its_turn_skips_nothing():
    assert routed(SPEC, [1, 2, 10, 20, 3, 4, 1, 2, 21, 11, 3, 4])[1] == [0, 0, 1, 1, 0, 0, 0, 0, 2, 2, 0, 0]


def test_caption_with_a_number_is_skipped_up_to_its_length():
    spec = RoutingSpec({"visual": (50,)}, user_open=((1, 2),), user_close=((3,),), skip=(((8,), (9, 50), 5),))
    assert routed(spec, [1, 2, 20, 8, 30, 31, 9, 50, 21, 3])[1] == [0, 0, 1, 0, 0, 0, 0, 1, 1, 0]
    assert routed(spec, [1, 2, 8, 30, 31, 32, 9, 50, 21, 3])[1] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert routed(spec, [1, 2, 8, 8, 30, 31, 9, 50, 21, 3])[1] == [0, 0, 1, 0, 0, 0, 0, 1, 1, 0]
    assert RoutingSpec.from_dict(spec.to_dict()) == spec


def test_media_outside_a_turn_has_none():
    modality, turn, _ = routed(SPEC, [50, 20, 1, 2, 21, 3, 4, 60])
    assert modality[0] == 1 and modality[7] == 2
    assert turn == [0, 0, 0, 0, 1, 0, 0, 0]


def test_open_typed_inside_a_turn_does_not_start_another():
    assert routed(SPEC, [1, 2, 20, 1, 2, 21, 3, 4, 1, 2, 22, 3, 4])[1] == [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0]


def test_open_turn_is_reported():
    assert routed(SPEC, [1, 2, 20, 3, 4, 1, 2, 50])[2] == 2


def test_padding_is_neither_text_nor_delimiter():
    modality, turn, _ = routed(SPEC, [1, 2, 0, 1, 2, 20, 3, 4], [0, 0, 0, 1, 1, 1, 1, 1])
    assert modality == [-1, -1, -1, 0, 0, 0, 0, 0]
    assert turn == [0, 0, 0, 0, 0, 1, 0, 0]
    assert routed(SPEC, [1, 2, 20, 3, 4], [1, 1, 1, 0, 0])[2] == 1


def test_wider_mask_counts_from_the_right():
    assert routed(SPEC, [20], [0, 0, 1, 1, 1])[0] == [0]


def test_template_without_close_ends_the_instruction_where_the_answer_starts():
    spec = RoutingSpec(placeholders={"visual": (50,)}, answer_start=((5,),))
    assert routed(spec, [50, 50, 1, 20, 21, 5, 30])[1:] == ([1, 1, 1, 1, 1, 0, 0], 0)
    assert routed(spec, [20, 50, 21, 30, 31], prompt_length=3)[1:] == ([0, 1, 1, 0, 0], 0)
    assert routed(spec, [20, 50, 21])[2] == 1


def test_rows_do_not_touch_each_other():
    ids = torch.tensor([[1, 2, 20, 3, 4, 50], [50, 1, 2, 50, 21, 3]])
    both = route(ids, SPEC)
    for row in range(2):
        alone = route(ids[row : row + 1], SPEC)
        assert torch.equal(both.turn[row], alone.turn[0]) and torch.equal(both.modality[row], alone.modality[0])


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"`input_ids`: expected \[batch, sequence\], got \[3\]"):
        route(torch.tensor([1, 2, 3]), SPEC)
    with pytest.raises(ValueError, match=r"`attention_mask`: expected \[1, 3\] or more columns"):
        route(torch.tensor([[1, 2, 3]]), SPEC, torch.ones(1, 2))


def test_spec_survives_json():
    import json

    assert RoutingSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"placeholders": {}}, "`placeholders` of RoutingSpec: expected at least one media modality"),
        ({"placeholders": {"visual": (1,), "audio": (1,)}}, "token id 1 stands for 'visual' and for 'audio'"),
        ({"placeholders": {"visual": ()}}, "expected token ids"),
        ({"placeholders": {"visual": (1,)}, "user_open": ((),)}, "`user_open` of RoutingSpec: expected token ids"),
    ],
)
def test_bad_spec_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RoutingSpec(**arguments)


def test_unknown_spec_key_is_named():
    with pytest.raises(ValueError, match=r"unknown keys \['user_opens'\]"):
        RoutingSpec.from_dict({"placeholders": {"visual": [1]}, "user_opens": []})


LONG = torch.int64


@pytest.mark.parametrize(
    ("modality", "turn", "names", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), None, "`modality` of Routing: expected an int64 tensor"),
        (torch.zeros(2, 3, dtype=LONG), torch.zeros(2, 4, dtype=LONG), None, "`turn` of Routing: expected the shape"),
        (torch.full((1, 2), -2), torch.zeros(1, 2, dtype=LONG), None, "expected values >= -1"),
        (torch.full((1, 2), 2), torch.zeros(1, 2, dtype=LONG), ("text", "visual"), "expected values below 2"),
        (torch.zeros(1, 2, dtype=LONG), torch.full((1, 2), -1), None, "expected values >= 0"),
        (torch.full((1, 2), -1), torch.ones(1, 2, dtype=LONG), None, "expected 0 at padding"),
    ],
)
def test_bad_routing_is_named(modality, turn, names, message):
    with pytest.raises(ValueError, match=message):
        Routing(modality, turn, names)


def test_renamed_follows_the_names():
    routing = Routing(torch.tensor([[-1, 0, 1, 2]]), torch.tensor([[0, 0, 1, 1]]), ("text", "visual", "audio"))
    assert routing.renamed(("text", "audio", "visual")).modality.tolist() == [[-1, 0, 2, 1]]
    with pytest.raises(ValueError, match="`routing` holds tokens of modality 'audio'"):
        routing.renamed(("text", "visual"))
