"""What the REST templates need of openapi.yaml, computed so that they only lay it out.

openapi-python-client drops some of the contract on its way (descriptions of parameters, formats, limits,
extensions), so the contract is read twice: as the tool understands it, and as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openapi_python_client.parser.bodies import BodyType
from openapi_python_client.parser.openapi import Endpoint, GeneratorData
from openapi_python_client.parser.properties.any import AnyProperty
from openapi_python_client.parser.properties.boolean import BooleanProperty
from openapi_python_client.parser.properties.datetime import DateTimeProperty
from openapi_python_client.parser.properties.file import FileProperty
from openapi_python_client.parser.properties.float import FloatProperty
from openapi_python_client.parser.properties.int import IntProperty
from openapi_python_client.parser.properties.list_property import ListProperty
from openapi_python_client.parser.properties.literal_enum_property import LiteralEnumProperty
from openapi_python_client.parser.properties.model_property import ModelProperty
from openapi_python_client.parser.properties.none import NoneProperty
from openapi_python_client.parser.properties.protocol import PropertyProtocol
from openapi_python_client.parser.properties.string import StringProperty
from openapi_python_client.parser.properties.union import UnionProperty

SIMPLE_TYPES: dict[type, str] = {
    AnyProperty: "Any",
    BooleanProperty: "bool",
    FloatProperty: "float",
    IntProperty: "int",
    StringProperty: "str",
}
INT32 = range(-(2**31), 2**31)

Schema = dict[str, Any]


class GenerationError(Exception):
    """The contract holds something that cannot be generated faithfully."""


@dataclass(frozen=True)
class Field:
    """One field of a model; `arguments` are those of pydantic's Field."""

    name: str
    annotation: str
    arguments: list[str]
    description: str
    nullable: bool
    required: bool


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operation; `annotation` is its type when it is given."""

    name: str
    wire: str
    annotation: str
    required: bool
    description: str

    @property
    def declaration(self) -> str:
        return f"{self.name}: {self.annotation}" + ("" if self.required else " | None = None")

    @property
    def keyword(self) -> str:
        return f"{self.name}={self.name}"

    @property
    def pair(self) -> str:
        return f'("{self.wire}", {self.name})'


@dataclass(frozen=True)
class Operation:
    """One operation.

    `body` is a JSON body, and `responses` are the statuses by the Python type of their JSON bodies. Content
    in other forms is sent or read by the caller: `binary_request`, `binary_response`.
    """

    name: str
    method: str
    wire_path: str
    summary: str
    description: str
    path: list[Parameter]
    query: list[Parameter]
    headers: list[Parameter]
    body: Parameter | None
    responses: dict[str, list[int]]
    errors: dict[str, str]
    binary_request: bool
    binary_response: bool
    response_imports: list[str]
    request_imports: list[str]

    @property
    def keywords(self) -> list[Parameter]:
        given = [*([self.body] if self.body else []), *self.query, *self.headers]
        return sorted(given, key=lambda parameter: not parameter.required)

    @property
    def path_expression(self) -> str:
        """The path as a Python expression."""
        path = self.wire_path
        for parameter in self.path:
            path = path.replace(f"{{{parameter.wire}}}", f"{{segment('{parameter.wire}', {parameter.name})}}")
        return f'f"{path}"' if self.path else f'"{path}"'

    @property
    def returns(self) -> str:
        return " | ".join([*self.responses, "None"])


class Document:
    """The contract as it is written."""

    def __init__(self, document: Schema) -> None:
        self._document = document
        self.schemas: dict[str, Schema] = document["components"]["schemas"]
        self.operations = {operation["operationId"]: operation for operation in self._read_operations()}
        self.sent = frozenset(self._read_sent())

    def _read_operations(self) -> Iterator[Schema]:
        """Each operation with its path, its method, and the parameters of its path among its own."""
        for path, item in self._document["paths"].items():
            for method, operation in item.items():
                if isinstance(operation, dict) and "responses" in operation:
                    parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
                    resolved = [self.resolve(parameter) for parameter in parameters]
                    yield {**operation, "path": path, "method": method.upper(), "parameters": resolved}

    def _read_sent(self) -> set[str]:
        """Names of the schemas that requests are made of."""
        names: set[str] = set()
        left: list[Any] = [operation.get("requestBody", {}) for operation in self.operations.values()]
        while left:
            node = left.pop()
            if isinstance(node, list):
                left += node
            elif isinstance(node, dict):
                left += node.values()
                name = str(node.get("$ref", "")).rpartition("/")[2]
                if name and name not in names:
                    names.add(name)
                    left.append(self.resolve(node))
        return names

    def resolve(self, node: Schema) -> Schema:
        """Follow $ref, also when it stands alone in an allOf so that it can have siblings."""
        if "$ref" in node:
            target: Schema = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return self.resolve(target)
        if len(node.get("allOf", ())) == 1:
            siblings = {key: value for key, value in node.items() if key != "allOf"}
            return {**self.resolve(node["allOf"][0]), **siblings}
        return node

    def is_secret(self, schema: Schema) -> bool:
        schema = self.resolve(schema)
        values = schema.get("additionalProperties")
        return schema.get("format") == "password" or (isinstance(values, dict) and self.is_secret(values))


class Contract:
    """The contract as the templates need it."""

    def __init__(self, document: Schema, data: GeneratorData) -> None:
        self.document = Document(document)
        self._models = {str(model.class_info.name): model for model in data.models}

    # Models

    def is_sent(self, model: ModelProperty) -> bool:
        """Whether clients send the model; then it is checked strictly."""
        return model.class_info.name in self.document.sent

    def is_map(self, prop: PropertyProtocol) -> bool:
        return isinstance(prop, ModelProperty) and not prop.data.properties and not prop.data.allOf

    def model_imports(self, model: ModelProperty) -> list[str]:
        return sorted({line for prop in properties(model) for line in self._imports(prop, ".")})

    def fields(self, model: ModelProperty) -> list[Field]:
        """The fields of a model, in the order of the contract, those without a default first."""
        written: Schema = self.document.schemas[model.class_info.name]
        known = {wire_name(prop): prop for prop in properties(model)}
        fields = [self._field(model, known[wire], written) for wire in written["properties"]]
        return sorted(fields, key=lambda field: not field.required)

    def _field(self, model: ModelProperty, prop: PropertyProtocol, owner: Schema) -> Field:
        wire = wire_name(prop)
        schema = self.document.resolve(owner["properties"][wire])
        strict = self.is_sent(model)
        required = prop.required if strict else wire in owner.get("x-essential", ())
        nullable = isinstance(prop, UnionProperty) and any(
            isinstance(inner, NoneProperty) for inner in prop.inner_properties
        )
        optional = nullable
        arguments: list[str] = []
        if not required:
            if strict and prop.default is not None:
                arguments.append(f"default={prop.default.python_code.as_unembedded_code()}")
            elif not strict and isinstance(prop, ListProperty):
                arguments.append("default_factory=list")
            elif not strict and self.is_map(prop):
                arguments.append("default_factory=dict")
            else:
                arguments.append("default=None")
                optional = True
        if wire != prop.python_name:
            arguments.append(f'alias="{wire}"')
        if strict:
            arguments += limits(schema)
        if self.document.is_secret(schema):
            arguments.append("repr=False")
        return Field(
            name=str(prop.python_name),
            annotation=self._type(prop, reading=True) + (" | None" if optional else ""),
            arguments=arguments,
            description=describe(f"{model.class_info.name}.{wire}", schema, schema),
            nullable=nullable,
            required=required,
        )

    # Operations

    def operation(self, endpoint: Endpoint) -> Operation:
        written = self.document.operations[str(endpoint.name)]
        if endpoint.cookie_parameters:
            raise GenerationError(f"{endpoint.name}: cookies are not generated")
        body = self._body(endpoint)
        bodies = list(self._response_bodies(endpoint))
        json_bodies = [(status, prop) for status, prop in bodies if not isinstance(prop, FileProperty)]
        responses: dict[str, list[int]] = {}
        for status, prop in json_bodies:
            responses.setdefault(self._type(prop, reading=True), []).append(status)
        annotated: list[PropertyProtocol] = [parameter for _, parameter in endpoint.iter_all_parameters()]
        annotated += [endpoint.bodies[0].prop] if body else []
        return Operation(
            name=str(endpoint.name),
            method=written["method"],
            wire_path=written["path"],
            summary=written["summary"],
            description=written.get("description", ""),
            path=[self._parameter(endpoint, prop) for prop in endpoint.path_parameters],
            query=[self._parameter(endpoint, prop) for prop in endpoint.query_parameters],
            headers=[self._parameter(endpoint, prop) for prop in endpoint.header_parameters],
            body=body,
            responses=responses,
            errors={
                status: self.document.resolve(response)["description"]
                for status, response in written["responses"].items()
                if not status.startswith("2")
            },
            binary_request=bool(endpoint.bodies) and body is None,
            binary_response=len(json_bodies) < len(bodies),
            response_imports=self._all_imports([prop for _, prop in json_bodies]),
            request_imports=self._all_imports(annotated),
        )

    def _parameter(self, endpoint: Endpoint, prop: PropertyProtocol) -> Parameter:
        wire = wire_name(prop)
        where = f"{endpoint.name}: {wire}"
        [written] = [
            p for p in self.document.operations[str(endpoint.name)]["parameters"] if p["name"] == wire
        ]
        if isinstance(prop, ListProperty) and written.get("explode", True):
            raise GenerationError(f"{where} is exploded, which is not generated")
        return Parameter(
            name=str(prop.python_name),
            wire=wire,
            annotation=self._type(prop, reading=False),
            required=prop.required,
            description=describe(where, written, self.document.resolve(written["schema"])),
        )

    def _body(self, endpoint: Endpoint) -> Parameter | None:
        """The JSON body, if that is the form of the request's content."""
        if not endpoint.bodies or any(body.body_type != BodyType.JSON for body in endpoint.bodies):
            return None
        [body] = endpoint.bodies
        if not isinstance(body.prop, ModelProperty):
            raise GenerationError(f"{endpoint.name}: the JSON body has to be an object")
        name = str(body.prop.class_info.name)
        return Parameter("body", "", name, body.prop.required, self.document.schemas[name]["description"])

    def _response_bodies(self, endpoint: Endpoint) -> Iterator[tuple[int, PropertyProtocol]]:
        """Status and body of each successful response that has one."""
        for response in endpoint.responses:
            statuses = response.status_code.range
            if statuses is None or statuses[0] != statuses[1]:
                raise GenerationError(f"{endpoint.name}: only single statuses are generated")
            if 200 <= statuses[0] <= 299 and response.source["return_type"] != "None":
                yield statuses[0], response.prop

    # Types

    def _type(self, prop: PropertyProtocol, *, reading: bool) -> str:
        """The Python type of a value, null left out.

        Args:
            prop: The property.
            reading: For a field, where enums are open and times are checked, or else for a parameter.
        """
        if type(prop) in SIMPLE_TYPES:
            return SIMPLE_TYPES[type(prop)]
        if isinstance(prop, DateTimeProperty):
            return "AwareDatetime" if reading else "datetime"
        if isinstance(prop, LiteralEnumProperty):
            return f"{prop.class_info.name} | str" if reading else str(prop.class_info.name)
        if isinstance(prop, ListProperty):
            return f"list[{self._type(prop.inner_property, reading=reading)}]"
        if isinstance(prop, UnionProperty):
            inner = [one for one in prop.inner_properties if not isinstance(one, NoneProperty)]
            return " | ".join(self._type(one, reading=reading) for one in inner)
        if isinstance(prop, ModelProperty):
            if self.is_map(prop):
                return f"dict[str, {self._type(self._map_value(prop), reading=reading)}]"
            return str(prop.class_info.name)
        raise GenerationError(f"{wire_name(prop)}: no Python type for {type(prop).__name__}")

    def _map_value(self, prop: ModelProperty) -> PropertyProtocol:
        value = self._models[prop.class_info.name].additional_properties
        if value is None:
            raise GenerationError(f"{prop.class_info.name} can hold nothing")
        return value

    def _imports(self, prop: PropertyProtocol, prefix: str) -> Iterator[str]:
        """Import statements for the classes that the type of a property names."""
        if isinstance(prop, ListProperty):
            yield from self._imports(prop.inner_property, prefix)
        elif isinstance(prop, UnionProperty):
            for inner in prop.inner_properties:
                yield from self._imports(inner, prefix)
        elif isinstance(prop, ModelProperty) and self.is_map(prop):
            yield from self._imports(self._map_value(prop), prefix)
        elif isinstance(prop, ModelProperty | LiteralEnumProperty):
            yield f"from {prefix}{prop.class_info.module_name} import {prop.class_info.name}"

    def _all_imports(self, props: list[PropertyProtocol]) -> list[str]:
        return sorted({line for prop in props for line in self._imports(prop, "...models.")})


def wire_name(prop: PropertyProtocol) -> str:
    return prop.name.get_untrusted_value()


def properties(model: ModelProperty) -> list[PropertyProtocol]:
    return [*(model.required_properties or []), *(model.optional_properties or [])]


def describe(where: str, described: Schema, schema: Schema) -> str:
    """The description, with the default that the server takes."""
    if not described.get("description"):
        raise GenerationError(f"{where} has no description")
    default = f" Default: {schema['default']}." if "default" in schema else ""
    return f"{described['description']}{default}"


def limits(schema: Schema) -> list[str]:
    """The limits of a value as arguments of pydantic's Field."""
    int32 = schema.get("format") == "int32"
    found = {
        "ge": schema.get("minimum", INT32.start if int32 else None),
        "le": schema.get("maximum", INT32.stop - 1 if int32 else None),
        "min_length": schema.get("minLength", schema.get("minItems")),
        "max_length": schema.get("maxLength", schema.get("maxItems")),
    }
    return [f"{name}={value}" for name, value in found.items() if value is not None]
