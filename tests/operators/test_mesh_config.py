"""What a contrastive operator can be told of a mesh."""

import pytest

from datarax.operators import ContrastiveOperatorConfig


def config(**options):
    return ContrastiveOperatorConfig(
        input_fields=["a", "b"], output_fields=["loss"], features={"a": 4, "b": 4}, **options
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis_name": ""}, "axis_name must be the name of an axis, got ''"),
        ({"axis_name": "data", "collective": "tree"}, "collective must be one of"),
        ({"collective": "ring"}, "collective='ring' needs axis_name"),
        ({"axis_name": "data", "method": "nt_xent"}, "axis_name='data' is read by"),
        ({"axis_name": "data", "similarity": "late_interaction"}, "axis_name='data' is read by"),
    ],
)
def test_what_cannot_be_done_over_a_mesh_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
