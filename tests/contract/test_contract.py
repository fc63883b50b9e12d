"""openapi.yaml and proto/ are complete and sound in themselves."""

import keyword
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "openapi.yaml").read_text())


def operations() -> Iterator[Any]:
    """Every operation, with the parameters of its path among its own."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if method in ("get", "put", "post", "delete", "patch", "head", "options", "trace"):
                parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
                operation = {**operation, "parameters": [resolve(parameter) for parameter in parameters]}
                yield pytest.param(path, method, operation, id=f"{method.upper()} {path}")


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside a document."""
    if isinstance(node, dict):
        yield node
        for inner in node.values():
            yield from walk(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from walk(inner)


OPERATIONS = list(operations())


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_is_named_described_and_tagged(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    name = operation["operationId"]
    assert name.isidentifier()
    assert name == name.lower()
    assert not keyword.iskeyword(name)
    assert operation["summary"]
    assert not operation["summary"].endswith(".")
    [tag] = operation["tags"]
    assert tag in {known["name"] for known in DOCUMENT["tags"]}


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_documents_how_it_succeeds_and_fails(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    statuses = set(operation["responses"])
    assert any(status.startswith("2") for status in statuses)
    failures = {status for status in statuses if status.startswith(("4", "5"))}
    assert failures
    secured = operation.get("security", DOCUMENT["security"])
    assert ("401" in failures) == bool(secured)
    if any(parameter["in"] == "path" for parameter in operation["parameters"]):
        assert "404" in failures
    for status in failures:
        response = resolve(operation["responses"][status])
        assert response["description"]
        schema = response["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Error"}


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_the_parameters_of_an_operation_are_described_and_fit_its_path(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    for parameter in operation["parameters"]:
        assert parameter["description"], parameter["name"]
        assert parameter["schema"]
    in_path = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
    assert in_path == [part[1:-1] for part in path.split("/") if part.startswith("{")]


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in (param.values for param in OPERATIONS)]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    used = {node["$ref"] for node in walk(DOCUMENT) if isinstance(node.get("$ref"), str)}
    defined = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "parameters", "responses")
        for name in DOCUMENT["components"][kind]
    }
    assert used == defined


def test_every_schema_and_property_is_described() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema.get("description"), name
        assert set(schema.get("required", ())) <= set(schema.get("properties", ())), name
        assert set(schema.get("x-essential", ())) <= set(schema.get("required", ())), name
        for key, prop in schema.get("properties", {}).items():
            assert prop.get("description") or resolve(prop).get("description"), f"{name}.{key}"


def test_secrets_are_marked_as_such() -> None:
    marked = {
        key
        for schema in DOCUMENT["components"]["schemas"].values()
        for key, prop in schema.get("properties", {}).items()
        if prop.get("format") == "password"
    }
    assert marked == {"envdAccessToken", "trafficAccessToken", "password"}


def test_the_proto_files_compile_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    sources = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
    assert sources
    run = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", "--fatal_warnings",
         f"--descriptor_set_out={tmp_path / 'descriptors.pb'}", *sources],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "descriptors.pb").stat().st_size > 0
