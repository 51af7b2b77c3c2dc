"""openapi.yaml against the table of routes in api/routes.c, both ways."""

import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = {"get", "put", "post", "patch", "delete", "head", "options", "trace"}
ROUTE = re.compile(
    r'\{"([A-Z]+)",\s*"([^"]+)",\s*\w+,\s*ROUTE_\w+,\s*(true|false),\s*BODY_(\w+),\s*"([^"]*)"\}'
)


@pytest.fixture(scope="module")
def description():
    return yaml.safe_load((ROOT / "openapi.yaml").read_text())


@pytest.fixture(scope="module")
def routes():
    text = (ROOT / "api" / "routes.c").read_text()
    table = text[text.index("routes[] = {") : text.index("};")]
    found = ROUTE.findall(table)
    assert len(found) == table.count('{"'), "a line of the table that this test cannot read"
    return {(m, p): (apps == "true", body, query.split()) for m, p, apps, body, query in found}


def operations(description):
    for path, item in description["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield method.upper(), path, item, operation


def resolve(description, node):
    while "$ref" in node:
        target = description
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def test_is_openapi_3_1(description):
    assert description["openapi"].startswith("3.1.")
    assert description["info"]["title"] and description["info"]["version"]


def test_every_route_is_described_and_every_operation_is_a_route(description, routes):
    assert {(m, p) for m, p, _, _ in operations(description)} == set(routes)


def test_query_parameters_apps_and_bodies_agree(description, routes):
    for method, path, item, operation in operations(description):
        apps, body, query = routes[method, path]
        parameters = [
            resolve(description, p)
            for p in item.get("parameters", []) + operation.get("parameters", [])
        ]
        assert sorted(p["name"] for p in parameters if p["in"] == "query") == sorted(query)
        in_path = {p["name"] for p in parameters if p["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), path
        assert operation.get("x-apps", False) == apps, path
        assert ("requestBody" in operation) == (body != "NONE"), path


def test_every_operation_has_an_id_of_its_own_and_responses(description):
    ids = [operation["operationId"] for _, _, _, operation in operations(description)]
    assert len(ids) == len(set(ids))
    for _, path, _, operation in operations(description):
        assert operation["summary"] and operation["responses"], path


def test_every_reference_leads_somewhere(description):
    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                resolve(description, node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(description)
