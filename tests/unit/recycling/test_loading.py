"""What a worker or a zygote loads: import strings, factories, `preload`, `warm_up`."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest
import uvicorn

from memguard_native.errors import ConfigError
from memguard_native.recycling import loading
from memguard_native.recycling.loading import import_attribute, load_objects, server_config
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.settings import ServiceSettings

MODULE = """
made = []

class Shop:
    async def app(self, scope, receive, send): ...

shop = Shop()

def create():
    made.append("app")
    return shop.app

def weights():
    made.append("weights")
    return Weights()

class Weights: ...

def warm():
    made.append("warm")

async def warm_later():
    made.append("warm later")

def fail():
    raise OSError("no model")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that can be imported in this test only."""
    (tmp_path / "a_shop.py").write_text(MODULE)
    (tmp_path / "a_broken_shop.py").write_text("import a_missing_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading, "_kept", [])
    yield "a_shop"
    for name in ("a_shop", "a_broken_shop"):
        sys.modules.pop(name, None)


def settings(app="a_shop:shop.app", **changes):
    policy = RecyclePolicy().resolved(workers=1, limit_bytes=None, cgroup_limit_bytes=None)
    return ServiceSettings(app=app, policy=policy, **changes)


# --- import strings -------------------------------------------------------------------------------


def test_an_attribute_may_be_within_another_one(module):
    assert import_attribute("app", f"{module}:shop.app") == sys.modules[module].shop.app


@pytest.mark.parametrize("name", ["a_shop", "a_shop:", ":app", "", "a_shop.app"])
def test_a_name_without_two_parts_is_refused(name):
    with pytest.raises(ConfigError, match="app must have the form"):
        import_attribute("app", name)


@pytest.mark.parametrize(
    ("name", "missing"), [("nowhere:app", "nowhere"), ("nowhere.web:app", "nowhere")]
)
def test_a_module_that_is_not_there_is_named(name, missing):
    with pytest.raises(ConfigError, match=f"there is no '{missing}'"):
        import_attribute("app", name)


def test_a_submodule_that_is_not_there_is_named(module):
    with pytest.raises(ConfigError, match=r"there is no 'email\.shop'"):
        import_attribute("preload", "email.shop:app")


def test_an_attribute_that_is_not_there_is_named(module):
    with pytest.raises(ConfigError, match=r"'a_shop' has no 'shop\.till'"):
        import_attribute("warm_up", f"{module}:shop.till")


def test_what_the_applications_own_code_misses_is_no_wrong_setting(module):
    with pytest.raises(ModuleNotFoundError, match="a_missing_library"):
        import_attribute("app", "a_broken_shop:app")


# --- the application and what belongs to it -------------------------------------------------------


def test_an_application_is_imported(module):
    objects = load_objects(settings())
    assert objects.app == sys.modules[module].shop.app
    assert objects.warm_up is None


def test_a_factory_is_called(module):
    objects = load_objects(settings("a_shop:create", factory=True))
    assert objects.app == sys.modules[module].shop.app
    assert sys.modules[module].made == ["app"]


def test_without_factory_a_function_is_the_application_itself(module):
    assert load_objects(settings("a_shop:create")).app is sys.modules[module].create


def test_what_preload_returns_is_kept_and_the_application_comes_first(module):
    load_objects(settings("a_shop:create", factory=True, preload="a_shop:weights"))
    assert sys.modules[module].made == ["app", "weights"]
    (kept,) = loading._kept
    assert type(kept).__name__ == "Weights"


def test_what_preload_raises_comes_through(module):
    with pytest.raises(OSError, match="no model"):
        load_objects(settings(preload="a_shop:fail"))


@pytest.mark.parametrize("field", ["preload", "warm_up"])
def test_a_function_that_is_not_there_names_its_setting(module, field):
    with pytest.raises(ConfigError, match=f"{field} must name something that is there"):
        load_objects(settings(**{field: "a_shop:missing"}))


def test_objects_that_are_given_are_not_imported():
    async def app(scope, receive, send): ...

    called = []
    objects = load_objects(
        settings("an object"),
        app=app,
        preload=lambda: called.append("preload"),
        warm_up=lambda: called.append("warm"),
    )
    assert objects.app is app
    warm(objects)
    assert called == ["preload", "warm"]


# --- warm-up --------------------------------------------------------------------------------------


class Answering:
    """An application that answers all requests with one status, or none."""

    def __init__(self, status):
        self.status = status
        self.scopes = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        assert (await receive())["body"] == b""
        if self.status is not None:
            await send({"type": "http.response.start", "status": self.status, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})


def warm(objects, app=None):
    """Warm it up, as a worker does."""
    server = SimpleNamespace(
        config=SimpleNamespace(loaded_app=app, root_path=""),
        lifespan=SimpleNamespace(state={"model": "loaded"}),
    )
    asyncio.run(objects.warm_up(server))


@pytest.mark.parametrize(("name", "happened"), [("warm", "warm"), ("warm_later", "warm later")])
def test_warm_up_may_be_a_function_or_a_coroutine_function(module, name, happened):
    objects = load_objects(settings(warm_up=f"a_shop:{name}"))
    assert sys.modules[module].made == []
    warm(objects)
    assert sys.modules[module].made == [happened]


@pytest.mark.parametrize("status", [200, 204, 302])
def test_warm_up_may_be_a_request(module, status):
    app = Answering(status)
    warm(load_objects(settings(warm_up="/search?q=a%20b")), app)
    (scope,) = app.scopes
    assert (scope["method"], scope["path"], scope["query_string"]) == ("GET", "/search", b"q=a%20b")
    assert scope["state"] == {"model": "loaded"}


@pytest.mark.parametrize(("status", "told"), [(404, "404"), (500, "500"), (None, "nothing")])
def test_a_warm_up_request_that_fails_keeps_the_worker_from_being_ready(module, status, told):
    objects = load_objects(settings(warm_up="/search"))
    with pytest.raises(RuntimeError, match=f"/search was answered with {told}"):
        warm(objects, Answering(status))


def test_what_warm_up_raises_comes_through(module):
    with pytest.raises(OSError, match="no model"):
        warm(load_objects(settings(warm_up="a_shop:fail")))


# --- uvicorn --------------------------------------------------------------------------------------


def test_uvicorn_is_told_the_options_of_the_service():
    app = Answering(200)
    options = {"root_path": "/shop", "log_config": None, "backlog": 17}
    config = server_config(settings(timeout_keep_alive=7.0, uvicorn_options=options), app)
    assert isinstance(config, uvicorn.Config)
    assert (config.app, config.backlog, config.timeout_keep_alive) == (app, 17, 7.0)
    assert config.root_path == "/shop"


def test_an_option_that_uvicorn_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="no_such is not an option"):
        server_config(settings(uvicorn_options={"no_such": 1, "log_config": None}), Answering(200))
