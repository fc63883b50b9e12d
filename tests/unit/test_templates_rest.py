"""Templates as the REST interface of the control plane tells of them."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox_local.control.api import ControlPlane
from sandbox_local.control.registry import Registry
from sandbox_local.control.templates import BASE, Catalog
from sandbox_local.http import HttpError, Response
from sandbox_local.templates.store import Store, TemplateError, default_directory, template_id
from tests.unit.control_standin import StandinBackend, request, with_registry

KEY = "e2b_" + "0" * 40
NAME = "my-template_2"


class Api:
    """Asks a control plane that has a store with one template."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self.store = store
        self._plane = ControlPlane(registry, KEY, "localhost:3000", Catalog(store))

    async def ask(self, method: str, target: str, body: object = None) -> Response:
        text = b"" if body is None else json.dumps(body)
        return await self._plane.handle(request(method, target, text, x_api_key=KEY))

    async def json(self, method: str, target: str, body: object = None) -> Any:
        response = await self.ask(method, target, body)
        assert isinstance(response.body, bytes)
        return json.loads(response.body)

    async def refused(self, method: str, target: str, body: object = None) -> HttpError:
        with pytest.raises(HttpError) as refusal:
            await self.ask(method, target, body)
        return refusal.value


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.make()
    build_id, lock = store.begin()
    store.publish(NAME, build_id, 5, 1)
    lock.close()
    return store


def with_api(store: Store, test: Callable[[Api], Awaitable[None]]) -> None:
    async def body(registry: Registry, _: StandinBackend) -> None:
        await test(Api(registry, store))

    with_registry(body)


def test_templates_are_listed_and_shown(store: Store) -> None:
    async def test(api: Api) -> None:
        base, mine = await api.json("GET", "/templates")
        assert (base["templateID"], base["names"], base["public"]) == (BASE.template_id, ["base"], True)
        assert (mine["templateID"], mine["aliases"]) == (template_id(NAME), [NAME])
        assert (mine["buildStatus"], mine["buildCount"], mine["public"]) == ("ready", 1, False)
        for reference in (NAME, template_id(NAME), f"{NAME}%3Alatest"):
            shown = await api.json("GET", f"/templates/{reference}")
            assert {**mine, "builds": shown["builds"]} == shown
            assert shown["builds"][0]["buildID"] == mine["buildID"]
        assert await api.json("GET", f"/templates/aliases/{NAME}") == {
            "templateID": template_id(NAME),
            "public": False,
        }
        assert (await api.refused("GET", "/templates/aliases/unknown")).status == 404

    with_api(store, test)


@pytest.mark.parametrize("reference", [NAME, f"{NAME}:default", template_id(NAME)])
def test_sandboxes_are_made_of_templates_and_listed_by_them(store: Store, reference: str) -> None:
    async def test(api: Api) -> None:
        made = await api.json("POST", "/v2/sandboxes", {"templateID": reference})
        assert (made["templateID"], made["alias"]) == (template_id(NAME), NAME)
        await api.ask("POST", "/v2/sandboxes", {"templateID": "base"})
        for named in (NAME, template_id(NAME)):
            (listed,) = await api.json("GET", f"/v2/sandboxes?template={named}")
            assert listed["sandboxID"] == made["sandboxID"]
            assert listed["templateID"] == template_id(NAME)

    with_api(store, test)


def test_an_unknown_template_is_404_and_names_those_that_there_are(store: Store) -> None:
    async def test(api: Api) -> None:
        for reference in ("other", f"{NAME}:v2", "../x", f"{NAME}/"):
            refusal = await api.refused("POST", "/v2/sandboxes", {"templateID": reference})
            assert refusal.status == 404
            assert f"base, {NAME}" in refusal.message

    with_api(store, test)


def test_a_template_is_deleted_by_name_or_id_but_base_is_not(store: Store) -> None:
    async def test(api: Api) -> None:
        for reference in ("base", BASE.template_id):
            refusal = await api.refused("DELETE", f"/templates/{reference}")
            assert (refusal.status, "own system" in refusal.message) == (409, True)
        assert (await api.ask("DELETE", f"/templates/{template_id(NAME)}")).status == 204
        assert (await api.refused("DELETE", f"/templates/{NAME}")).status == 404
        assert [shown["names"] for shown in await api.json("GET", "/templates")] == [["base"]]

    with_api(store, test)


def test_building_over_the_api_is_refused_with_the_way_to_do_it(store: Store) -> None:
    async def test(api: Api) -> None:
        refusal = await api.refused("POST", "/v3/templates", {"name": "x"})
        assert (refusal.status, "sandbox_local template import" in refusal.message) == (501, True)

    with_api(store, test)


def test_a_lease_keeps_a_build_that_is_replaced_or_deleted(store: Store) -> None:
    leased, lock = store.lease(NAME)
    build_id, importing = store.begin()
    assert store.leftovers() == [], "what is being imported is taken for a leftover"
    store.publish(NAME, build_id, 5, 1)
    importing.close()
    assert store.leftovers() == []
    store.delete(NAME)
    lock.close()
    left = store.leftovers()
    assert {name for name, _ in left} == {leased.build_id, build_id}
    for _, taken in left:
        taken.close()
    with pytest.raises(TemplateError, match="deleted"):
        store.lease(NAME)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1}', '{"name": "../x", "build_id": ".."}'])
def test_files_of_the_store_that_make_no_sense_are_no_templates(store: Store, content: str) -> None:
    (store.path / "odd.json").write_text(content)
    assert [stored.name for stored in store.templates()] == [NAME]


def test_the_files_of_a_template_outlive_damage_to_what_names_them(store: Store) -> None:
    file = store.path / f"{NAME}.json"
    file.write_text(file.read_text()[:-1])
    assert store.templates() == []
    assert store.leftovers() == []


def test_where_templates_are_kept_can_be_told(tmp_path: Path) -> None:
    assert default_directory({"SANDBOX_SYNC_TEMPLATES": "/x"}) == Path("/x")
    usual = Path("/var/lib") if os.geteuid() == 0 else tmp_path
    expected = usual / "sandbox-sync" / "templates"
    assert default_directory({"XDG_DATA_HOME": str(tmp_path)}) == expected
