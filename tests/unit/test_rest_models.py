"""The generated models against the contract: what it allows is read and written, what breaks it is survived.

The cases are derived from openapi.yaml, so a schema or operation that is added is covered without a new test.
"""

import copy
import datetime
import importlib
import json
import pickle
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sandbox_sync_rest.models
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sandbox_sync_rest.api.envd import get_envs
from sandbox_sync_rest.api.sandboxes import get_sandboxes_sandbox_id, get_v2_sandboxes, post_v2_sandboxes
from sandbox_sync_rest.errors import InvalidResponse
from sandbox_sync_rest.models.error import Error
from sandbox_sync_rest.models.sandbox import Sandbox
from sandbox_sync_rest.models.sandbox_detail import SandboxDetail
from sandbox_sync_rest.types import Model

Json = Any
Schema = dict[str, Any]

CONTRACT: Schema = yaml.safe_load((Path(__file__).resolve().parents[2] / "openapi.yaml").read_text())


@dataclass
class Response:
    """As much of a response as is looked at."""

    status_code: int
    content: bytes


def resolve(node: Schema) -> Schema:
    if "$ref" in node:
        target = CONTRACT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return resolve(target)
    if "allOf" in node:
        [base] = node["allOf"]
        return {**resolve(base), **{key: value for key, value in node.items() if key != "allOf"}}
    return node


def models() -> dict[str, type[Model]]:
    """Every generated model by name."""
    found = {}
    for module in pkgutil.iter_modules(sandbox_sync_rest.models.__path__):
        for value in vars(importlib.import_module(f"sandbox_sync_rest.models.{module.name}")).values():
            if (
                isinstance(value, type)
                and issubclass(value, Model)
                and value.__module__.endswith(module.name)
            ):
                found[value.__name__] = value
    return found


MODELS = models()
OBJECTS = {
    name: schema for name, schema in CONTRACT["components"]["schemas"].items() if "properties" in schema
}


def values(schema: Schema) -> st.SearchStrategy[Json]:
    """All that a schema allows."""
    schema = resolve(schema)
    strategy: st.SearchStrategy[Json]
    if "enum" in schema:
        strategy = st.sampled_from(schema["enum"])
    elif schema.get("format") == "date-time":
        times = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1))
        strategy = times.map(lambda time: time.isoformat() + "Z")
    elif schema["type"] == "string":
        strategy = st.text(
            st.characters(codec="utf-8"),
            min_size=schema.get("minLength", 0),
            max_size=schema.get("maxLength"),
        )
    elif schema["type"] == "integer":
        bits = 31 if schema.get("format") == "int32" else 63
        strategy = st.integers(
            schema.get("minimum", -(2**bits)), min(schema.get("maximum", 2**bits - 1), 2**bits - 1)
        )
    elif schema["type"] == "number":
        strategy = st.floats(allow_nan=False, allow_infinity=False)
    elif schema["type"] == "boolean":
        strategy = st.booleans()
    elif schema["type"] == "array":
        strategy = st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    elif "properties" in schema:
        fields = {name: values(field) for name, field in schema["properties"].items()}
        required = {name: fields.pop(name) for name in schema.get("required", ())}
        strategy = st.fixed_dictionaries(required, optional=fields)
    else:
        inner = schema["additionalProperties"]
        anything = st.none() | st.booleans() | st.text() | st.lists(st.integers(), max_size=2)
        strategy = st.dictionaries(st.text(), anything if inner is True else values(inner), max_size=3)
    return st.none() | strategy if schema.get("nullable") else strategy


def example(schema: Schema) -> Json:
    """A value with every field that the schema knows."""
    schema = resolve(schema)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "date-time":
        return "2026-11-23T12:00:00Z"
    if schema["type"] == "array":
        return [example(schema["items"])]
    if "properties" in schema:
        return {name: example(field) for name, field in schema["properties"].items()}
    if schema["type"] == "object":
        inner = schema["additionalProperties"]
        return {"key": "anything" if inner is True else example(inner)}
    return {"string": "text", "integer": schema.get("minimum", 7), "number": 1.5, "boolean": True}[
        schema["type"]
    ]


def test_every_object_of_the_contract_has_a_model() -> None:
    assert MODELS.keys() == OBJECTS.keys()


@pytest.mark.parametrize("name", OBJECTS)
def test_a_full_object_is_read_into_fields_and_written_back(name: str) -> None:
    wire = example(OBJECTS[name])
    model = MODELS[name].model_validate(wire)
    assert not model.model_extra
    assert model.to_wire() == wire


@pytest.mark.parametrize("name", OBJECTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_the_contract_allows_survives_a_round_trip(name: str, data: st.DataObject) -> None:
    wire = data.draw(values(OBJECTS[name]))
    assert MODELS[name].model_validate(wire).to_wire() == wire


@pytest.mark.parametrize("name", OBJECTS)
def test_unknown_fields_are_kept(name: str) -> None:
    """G54: a field that the contract does not know can be read, and is written back."""
    wire = {**example(OBJECTS[name]), "fieldOfTomorrow": {"a": [1]}}
    model: Any = MODELS[name].model_validate(wire)
    assert model.fieldOfTomorrow == {"a": [1]}
    assert model.to_wire() == wire


# What a server may do wrong to one value; ABSENT takes it away.
ABSENT = object()
WRONGS = {
    "absent": ABSENT,
    "null": None,
    "a string": "some value of tomorrow",
    "a number": 1e300,
    "an object": {"x": {}},
    "a list": [[None]],
}


def places(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def spoil(value: Json, path: tuple[str | int, ...], wrong: object) -> Json:
    """A copy with something wrong in one place."""
    spoiled = copy.deepcopy(value)
    holder = spoiled
    for key in path[:-1]:
        holder = holder[key]
    if wrong is ABSENT:
        del holder[path[-1]]
    else:
        holder[path[-1]] = wrong
    return spoiled


def answers() -> Iterator[Any]:
    """Every operation with a JSON answer, with the status and schema of that answer."""
    for item in CONTRACT["paths"].values():
        for operation in item.values():
            if not isinstance(operation, dict) or "responses" not in operation:
                continue
            for status, response in operation["responses"].items():
                content = resolve(response).get("content", {}).get("application/json")
                if status.startswith("2") and content:
                    name, tag = operation["operationId"], operation["tags"][0]
                    module = importlib.import_module(f"sandbox_sync_rest.api.{tag}.{name}")
                    yield pytest.param(module, int(status), content["schema"], id=f"{name}-{status}")


ANSWERS = list(answers())


def is_essential(schema: Schema, path: tuple[str | int, ...]) -> bool:
    """Whether the answer is of no use without the value there: an item of it, or what x-essential names."""
    schema = resolve(schema)
    if schema["type"] == "array":
        return len(path) == 1 or (len(path) > 1 and is_essential(schema["items"], path[1:]))
    if "properties" not in schema:
        return True
    return len(path) == 1 and path[0] in schema.get("x-essential", ())


@pytest.mark.parametrize(("operation", "status", "schema"), ANSWERS)
def test_nothing_but_the_essential_can_break_the_reading_of_an_answer(
    operation: Any, status: int, schema: Schema
) -> None:
    """G54: absent, null, malformed and unknown values anywhere in an answer leave the rest readable."""
    whole = example(schema)
    tried = 0
    for path in places(whole):
        for wrong in WRONGS.values():
            response = Response(status, json.dumps(spoil(whole, path, wrong)).encode())
            try:
                assert operation.parse(response) is not None
            except InvalidResponse:
                assert is_essential(schema, path), f"{path} is not essential, yet {wrong!r} there breaks it"
            tried += 1
    assert tried >= len(WRONGS)


@pytest.mark.parametrize(("operation", "status", "schema"), ANSWERS)
def test_an_answer_without_its_essentials_is_an_error(operation: Any, status: int, schema: Schema) -> None:
    essential = resolve(resolve(schema).get("items", schema)).get("x-essential", ())
    for name in essential:
        for wrong in (ABSENT, None, {}):
            whole = example(schema)
            path = (0, name) if isinstance(whole, list) else (name,)
            with pytest.raises(InvalidResponse, match=name):
                operation.parse(Response(status, json.dumps(spoil(whole, path, wrong)).encode()))


@pytest.mark.parametrize(("operation", "status", "schema"), ANSWERS)
@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe", b"{", b"[" * 100_000, b'"text"', b"12"])
def test_an_answer_that_is_something_else_is_an_error(
    operation: Any, status: int, schema: Schema, content: bytes
) -> None:
    with pytest.raises(InvalidResponse, match=operation.__name__.rpartition(".")[2]):
        operation.parse(Response(status, content))


@pytest.mark.parametrize(("operation", "status", "schema"), ANSWERS)
@pytest.mark.parametrize("other", [199, 299, 404, 502, 520, 561, 999])
def test_a_status_without_a_model_reads_as_none(
    operation: Any, status: int, schema: Schema, other: int
) -> None:
    """G54: a status that the contract does not know, such as 520 or 561, does not raise."""
    assert operation.parse(Response(other, b"<html>")) is None


def test_unknown_enum_values_stay_readable() -> None:
    """G54: a state of tomorrow is its own text."""
    detail = SandboxDetail.model_validate({"sandboxID": "i1", "state": "hibernating"})
    assert detail.state == "hibernating"


def test_what_is_absent_or_malformed_reads_as_none_or_empty() -> None:
    detail = SandboxDetail.model_validate(
        {"sandboxID": "i1", "startedAt": "soon", "metadata": None, "cpuCount": "many", "volumeMounts": 1}
    )
    assert (detail.started_at, detail.end_at, detail.cpu_count) == (None, None, None)
    assert (detail.metadata, detail.volume_mounts) == ({}, [])


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ("2026-11-23T12:00:00Z", (0, 0)),
        ("2026-11-23T13:00:00.123456789+01:00", (3600, 123456)),
        ("2026-11-23T12:00:00", None),
    ],
)
def test_times_have_an_offset_and_may_be_finer_than_python_knows(
    wire: str, expected: tuple[int, int] | None
) -> None:
    started = SandboxDetail.model_validate({"sandboxID": "i1", "startedAt": wire}).started_at
    if expected is None:
        assert started is None
    else:
        assert started is not None
        offset = started.utcoffset()
        assert offset is not None
        assert (offset.total_seconds(), started.microsecond) == expected


def test_null_in_place_of_a_list_or_map_reads_as_empty() -> None:
    """G54: some servers write null for a list without items."""
    assert get_v2_sandboxes.parse(Response(200, b"null")) == []
    assert get_envs.parse(Response(200, b"null")) == {}


def test_errors_of_other_shapes_can_be_read() -> None:
    """An error whose code is a name, as RPC writes it, still has its message."""
    error = Error.model_validate_json(b'{"code": "not_found", "message": "no such process"}')
    assert (error.code, error.message) == (None, "no such process")


def test_the_error_of_reading_says_where_without_values_and_can_be_pickled() -> None:
    with pytest.raises(InvalidResponse) as caught:
        post_v2_sandboxes.parse(Response(201, b'{"sandboxID": 12, "envdAccessToken": "s3cret"}'))
    copied = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, copied):
        assert (error.operation, error.status_code) == ("post_v2_sandboxes", 201)
        assert "sandboxID" in str(error)
        assert "s3cret" not in f"{error}{error!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_representation_of_an_answer_shows_a_secret() -> None:
    wire = {
        "sandboxID": "i1",
        "envdAccessToken": "s3cret",
        "trafficAccessToken": "s3cret",
        "tokenOfTomorrow": "s3cret",
    }
    sandbox = Sandbox.model_validate(wire)
    assert sandbox.envd_access_token == "s3cret"
    assert "i1" in repr(sandbox)
    assert "s3cret" not in f"{sandbox}{sandbox!r}"


def test_a_server_may_build_answers_by_python_names() -> None:
    sandbox = Sandbox(
        sandbox_id="i1", template_id="base", client_id="c", envd_version="1", domain=None, alias=None
    )
    assert sandbox.to_wire() == {
        "sandboxID": "i1",
        "templateID": "base",
        "clientID": "c",
        "envdVersion": "1",
        "domain": None,
    }
    assert get_sandboxes_sandbox_id.parse(Response(200, json.dumps(sandbox.to_wire()).encode())) is not None
