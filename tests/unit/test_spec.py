"""What a model is: every field checked, also where it comes from a peer, and back unchanged."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy import config
from glintpy.errors import ConfigError, DTypeError, GlintError, RemoteProtocolError, ShapeError
from glintpy.protocol import dtypes, wire
from glintpy.protocol.spec import ModelInfo, ModelSpec, num_partitions

SPEC = ModelSpec("weights", num_rows=5, num_cols=3, dtype="float32")
VECTOR = ModelSpec("counts", num_rows=5, num_cols=None, dtype="int64")
INFO = ModelInfo(7, SPEC, 2, (("s-1", "tcp://10.0.0.1:4000"), ("s-2", "tcp://10.0.0.2:4000")), (0, 1, 0))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def changed(**values: Any) -> ModelSpec:
    return dataclasses.replace(SPEC, **values)


def through_the_wire(content: Any) -> Any:
    return wire.content(wire.document(content))


# --- specs ------------------------------------------------------------------------------------------------


def test_sizes_follow_from_the_fields() -> None:
    assert (SPEC.row_shape, SPEC.row_bytes, SPEC.num_bytes) == ((3,), 12, 60)
    assert (VECTOR.row_shape, VECTOR.row_bytes, VECTOR.num_bytes) == ((), 8, 40)
    assert SPEC.numpy_dtype == np.dtype("<f4")
    assert changed(num_rows=0).num_bytes == 0
    assert changed(num_cols=0).num_bytes == 0


@given(
    num_rows=st.integers(0, 2**40),
    num_cols=st.none() | st.integers(0, 2**16),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    init=st.integers(-60_000, 60_000) | st.just(("normal", 0.0, 1.5)) | st.just(("uniform", -1, 1)),
    seed=st.integers(-(2**63), 2**63 - 1),
    finite=st.booleans(),
)
def test_a_spec_comes_back_from_a_document(**fields: Any) -> None:
    spec = ModelSpec("model", **fields)
    found = ModelSpec.from_content(through_the_wire(spec.to_content()))
    assert found == spec
    assert found.difference(spec) == ""
    assert found.init_depends_on_row == isinstance(fields["init"], tuple)


@pytest.mark.parametrize("init", [math.inf, -math.inf, -0.5, 7])
def test_special_initial_values_come_back(init: float) -> None:
    assert ModelSpec.from_content(through_the_wire(changed(init=init).to_content())).init == init


def test_nan_as_initial_value_comes_back() -> None:
    found = ModelSpec.from_content(through_the_wire(changed(init=math.nan).to_content())).init
    assert isinstance(found, float)
    assert math.isnan(found)


def test_differences_are_named() -> None:
    assert SPEC.difference(changed(num_rows=6, dtype="int8")) == "num_rows 5 != 6, dtype 'float32' != 'int8'"


@pytest.mark.parametrize(
    "name", ["", "a" * (config.MODEL_NAME_MAX + 1), "a\nb", "\x00", "\x7f", "\ud800", None, 5, b"a"]
)
def test_names_that_are_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="name has 1 to 128"):
        changed(name=name)


@pytest.mark.parametrize(
    "name", ["a", "a" * config.MODEL_NAME_MAX, "Gewichte \u00fcber alles", "a/b", "\U0001f9ca"]
)
def test_names_that_are_taken(name: str) -> None:
    assert changed(name=name).name == name


@pytest.mark.parametrize("field", ["num_rows", "num_cols"])
@pytest.mark.parametrize("size", [-1, 2**62, 1.0, "5", True, np.float64(3)])
def test_sizes_that_are_refused(field: str, size: Any) -> None:
    with pytest.raises(ShapeError, match=r"is an integer, not|it is at least 0"):
        changed(**{field: size})


def test_a_model_beyond_the_address_space_is_refused() -> None:
    with pytest.raises(ShapeError, match="can't be addressed"):
        changed(num_rows=2**40, num_cols=2**40)


@pytest.mark.parametrize(
    "dtype", ["complex64", "object", "<f8", "f8,(", "(2,)f8", "", None, 5, [["a", "<i4"]], {}]
)
def test_dtypes_that_are_refused(dtype: Any) -> None:
    # Some of these make numpy's own parser fail in ways of its own.
    with pytest.raises(DTypeError, match="it has one of int8, int16"):
        changed(dtype=dtype)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("partitions_per_server", 0, "1 to 4096"),
        ("partitions_per_server", 4097, "1 to 4096"),
        ("partitions_per_server", 1.0, "1 to 4096"),
        ("seed", 2**63, "64-bit"),
        ("seed", 1.5, "64-bit"),
        ("partitioner", "", "1 to 200 characters"),
        ("partitioner", None, "1 to 200 characters"),
        ("updater", "os.system()", "a name, or an import path"),
        ("updater", "a" * 201, "a name, or an import path"),
        ("updater", [], "a name, or an import path"),
        ("updater_numbers", {}, "a JSON text"),
        ("updater_numbers", "{", "a JSON text"),
        ("updater_numbers", "[1]", "have names"),
        ("updater_numbers", "{" + " " * 4096, "at most 4096"),
        ("finite", 1, "True or False"),
    ],
)
def test_settings_that_are_refused(field: str, value: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        changed(**{field: value})


@pytest.mark.parametrize(
    ("init", "dtype"),
    [
        (256, "uint8"),
        (-1, "uint8"),
        (1.5, "int64"),
        (2**63, "int64"),
        (10**400, "int64"),
        (2, "bool"),
        (math.nan, "int32"),
        (math.inf, "int32"),
        (10**400, "float64"),
        (1e39, "float32"),
        (70_000, "float16"),
        (("uniform", 0, 1), "int32"),
    ],
)
def test_initial_values_that_the_dtype_cannot_hold(init: Any, dtype: str) -> None:
    with pytest.raises(DTypeError):
        changed(init=init, dtype=dtype)


@pytest.mark.parametrize(
    "init",
    [
        "zeros",
        None,
        [0],
        (),
        ("uniform", 0),
        ("uniform", 0, 1, 2),
        ("cauchy", 0, 1),
        ([], 0, 1),
        ("uniform", "0", 1),
        ("uniform", 0, math.inf),
        ("uniform", 0, 10**400),
        ("uniform", 1, 0),
        ("uniform", -3e38, 1e39),
        ("normal", 0, -1),
        ("normal", math.nan, 1),
        ("normal", 0, True),
    ],
    ids=str,
)
def test_initial_values_of_another_form(init: Any) -> None:
    with pytest.raises(ConfigError, match="init"):
        changed(init=init)


def test_a_distance_that_overflows_is_refused() -> None:
    with pytest.raises(ConfigError, match="distance"):
        changed(init=("uniform", -1.5e308, 1.5e308), dtype="float64")


@pytest.mark.parametrize(
    ("init", "dtype"),
    [
        (255, "uint8"),
        (-128, "int8"),
        (2.0, "int64"),
        (True, "bool"),
        (2**64 - 1, "uint64"),
        (65504, "float16"),
    ],
)
def test_initial_values_at_the_border_are_taken(init: Any, dtype: str) -> None:
    assert changed(init=init, dtype=dtype).init == init


# --- foreign documents ------------------------------------------------------------------------------------


@given(JSON)
def test_a_foreign_spec_is_a_spec_or_one_of_our_errors(content: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="has the fields"):
        ModelSpec.from_content(content)


@given(st.sampled_from([field.name for field in dataclasses.fields(ModelSpec)]), JSON)
def test_a_spec_with_one_foreign_field_is_a_spec_or_one_of_our_errors(field: str, value: Any) -> None:
    content = {**SPEC.to_content(), field: value}
    try:
        spec = ModelSpec.from_content(content)
    except GlintError:
        return
    # What is let in is sound: its sizes can be worked out, and it comes back.
    assert spec.num_bytes >= 0
    assert json.dumps(spec.to_content()) == json.dumps(ModelSpec.from_content(spec.to_content()).to_content())


def test_a_spec_lacks_no_field_and_has_no_other() -> None:
    content = SPEC.to_content()
    for name in content:
        with pytest.raises(RemoteProtocolError, match="has the fields"):
            ModelSpec.from_content({key: value for key, value in content.items() if key != name})
    with pytest.raises(RemoteProtocolError, match="has the fields"):
        ModelSpec.from_content({**content, "colour": "blue"})


def test_a_description_comes_back_from_a_document() -> None:
    found = ModelInfo.from_content(through_the_wire(INFO.to_content()))
    assert found == INFO
    assert found.owners_array().tolist() == [0, 1, 0]
    assert found.owners_array().dtype == np.int64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_id", "7"),
        ("model_id", 7.0),
        ("model_id", -1),
        ("model_id", True),
        ("model_id", math.inf),
        ("routing", None),
        ("servers", 5),
        ("servers", ["ab"]),
        ("servers", [["s-1"]]),
        ("servers", [["s-1", 5]]),
        ("servers", []),
        ("owners", [0, 2]),
        ("owners", [-1]),
        ("owners", [0.0]),
        ("owners", None),
        ("owners", "01"),
        ("spec", None),
    ],
)
def test_a_foreign_description_with_a_wrong_field_is_refused(field: str, value: Any) -> None:
    content = {**INFO.to_content(), field: value}
    if (field, value) == ("servers", ["ab"]):
        # Two letters are a pair of texts to Python, and to nobody else.
        content["owners"] = [0]
    with pytest.raises(RemoteProtocolError, match="a model's"):
        ModelInfo.from_content(content)


@given(JSON)
def test_a_foreign_description_is_refused_whatever_it_is(content: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="a model's"):
        ModelInfo.from_content(content)


# --- partitions and dtypes ----------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(1, 64), st.integers(1, 64))
def test_there_are_never_more_partitions_than_keys_but_always_one(keys: int, each: int, servers: int) -> None:
    found = num_partitions(num_keys=keys, partitions_per_server=each, num_servers=servers)
    assert found == max(1, min(keys, each * servers))


@pytest.mark.parametrize("code", dtypes.BY_CODE)
def test_every_dtype_is_found_by_each_of_its_names(code: int) -> None:
    dtype = dtypes.BY_CODE[code]
    for name in (dtype, dtype.name, dtype.type, dtype.newbyteorder(">")):
        assert dtypes.model_dtype(name) == dtype
    assert dtypes.CODE_OF[dtype] == code


def test_codes_are_distinct_and_in_one_byte() -> None:
    assert len(dtypes.CODE_OF) == len(dtypes.BY_CODE)
    assert all(0 < code < 128 for code in dtypes.BY_CODE)


@pytest.mark.parametrize(
    "dtype", ["complex64", object, "S3", "M8[s]", "f8,(", "i4,,", "1" * 5000 + "f8", 3, [("a", "i4")]]
)
def test_a_dtype_that_no_model_has_is_refused_with_those_it_may_have(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="has one of int8"):
        dtypes.model_dtype(dtype)
