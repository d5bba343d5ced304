"""What packaging/ and .github/ have for other tools: those tools' own checkers find nothing, and what it says of longline is true."""

import json
import re
import shutil
import subprocess

import pytest

from longline_server import BINARY, REPOSITORY

PACKAGING = REPOSITORY / "packaging"
MANIFESTS = sorted((PACKAGING / "kubernetes").glob("*.yaml"))
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
UNIT = PACKAGING / "systemd/longline.service"

has_modules = pytest.mark.skipif(
    not (REPOSITORY / "tests/node_modules/kubernetes-models").exists(), reason="npm's packages are not installed"
)
has_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=REPOSITORY, **options)
    return done.returncode, done.stdout + done.stderr


def settings():
    """The names of all settings, from --help."""
    return set(re.findall(r"^  ([A-Z_]+), --", run(BINARY, "serve", "--help")[1], re.M))


def documents(path):
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(path.read_text("utf-8")))


# --- the image ----------------------------------------------------------------------------------


def test_the_context_of_the_image_has_what_its_build_asks_for(tmp_path):
    rules = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] not in "#*"]

    def is_sent(path):
        matching = [rule for rule in rules if path == rule.lstrip("!") or path.startswith(rule.lstrip("!") + "/")]
        return bool(matching) and matching[-1].startswith("!")  # the last one counts

    for path in filter(is_sent, run("git", "ls-files")[1].splitlines()):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, tmp_path / path)
    code, said = run("meson", "setup", tmp_path / "build", tmp_path)
    assert code == 0, said


# --- Kubernetes ---------------------------------------------------------------------------------


def lint(documents):
    return run("node", "tests/blackbox/lint.mjs", "kubernetes", input=json.dumps(documents))


@has_modules
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_what_kubernetes_takes(path):
    assert lint(documents(path)) == (0, "")


@has_modules
def test_the_linter_finds_what_is_wrong():
    manifest = documents(MANIFESTS[0])[0]
    manifest["metadata"]["nmae"] = "x"
    manifest["automountServiceAccountToken"] = 1
    code, found = lint([manifest])
    assert ".metadata.nmae: no such field" in found and "automountServiceAccountToken must be boolean" in found


def containers(path):
    for document in documents(path):
        if document["kind"] in ("StatefulSet", "Deployment"):
            pod = document["spec"]["template"]["spec"]
            yield from ((document, pod, container) for container in pod["containers"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_know_longline(path, server):
    found = documents(path)
    (config,) = (document["data"] for document in found if document["kind"] == "ConfigMap")
    assert set(config) <= settings() and all(isinstance(value, str) for value in config.values())
    ((_, _, container),) = (found for found in containers(path) if found[2]["name"] == "longline")
    port = container["ports"][0]
    assert config["LISTEN"] == f"0.0.0.0:{port['containerPort']}"
    assert {variable["name"] for variable in container.get("env", [])} <= settings()
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            assert container[name]["httpGet"]["port"] == port["name"]
            assert server.get(container[name]["httpGet"]["path"]).status == 200


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_give_no_rights(path):
    for document, pod, container in containers(path):
        assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]} and container["resources"]["limits"]["memory"]
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        claims = {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
        assert mounts == claims


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_manifests_refer_to_is_there(path):
    found = documents(path)
    names = {(document["kind"], document["metadata"]["name"]) for document in found}
    labels = [document["spec"]["template"]["metadata"]["labels"] for document in found if "template" in document.get("spec", {})]
    for document in found:
        for service in re.findall(r'"service": \{"name": "([^"]*)"', json.dumps(document)):
            assert ("Service", service) in names
        if document["kind"] == "Service" and document["metadata"]["name"] != "longline-nothing":
            assert any(document["spec"]["selector"].items() <= label.items() for label in labels)
    for _, pod, container in containers(path):
        for source in container.get("envFrom", []):
            assert ("ConfigMap", source["configMapRef"]["name"]) in names
        assert ("ServiceAccount", pod.get("serviceAccountName", "longline")) in names


# --- systemd ------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path):
    """The unit, with a program that is there."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text("utf-8").replace("/usr/bin/longline", str(BINARY)))
    shutil.copy(UNIT.with_suffix(".socket"), tmp_path)
    return path


@has_systemd
def test_systemd_takes_the_unit_and_the_socket(unit):
    code, said = run("systemd-analyze", "verify", "--man=no", unit, unit.with_suffix(".socket"))
    assert (code, said) == (0, "")


@has_systemd
def test_the_service_is_exposed_to_little(unit):
    code, said = run("systemd-analyze", "security", "--offline=yes", "--threshold=20", unit)
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])
    assert code == 0 and exposure <= 2.0, said


def test_the_unit_knows_longline():
    text = UNIT.read_text("utf-8")
    assert set(re.findall(r"^Environment=([A-Z_]+)=", text, re.M)) <= settings()
    assert set(re.findall(r"^#([A-Z_]+)=", (PACKAGING / "systemd/longline.env").read_text("utf-8"), re.M)) <= settings()
    assert re.search(r"^ExecStart=/usr/bin/longline serve$", text, re.M)
    user = re.search(r"^u (\S+)", (PACKAGING / "systemd/longline.sysusers").read_text("utf-8"), re.M)[1]
    assert f"\nUser={user}\nGroup={user}\n" in text


# --- The rest -----------------------------------------------------------------------------------


@has_modules
def test_workflows_are_what_github_takes():
    assert len(WORKFLOWS) == 3
    assert run("node", "tests/blackbox/lint.mjs", "workflow", *WORKFLOWS) == (0, "")


@has_modules
def test_the_linter_of_workflows_finds_what_is_wrong(tmp_path):
    text = WORKFLOWS[0].read_text("utf-8")
    (tmp_path / "wrong.yml").write_text(text.replace("needs: version", "needs: nothing"))
    assert "nothing" in run("node", "tests/blackbox/lint.mjs", "workflow", tmp_path / "wrong.yml")[1]


def test_workflows_run_scripts_that_are_there():
    for path in WORKFLOWS:
        text = path.read_text("utf-8")
        scripts = set(re.findall(r"run: script/([a-z-]+)", text))
        for listed in re.findall(r"script: \[(.*)\]", text):
            scripts |= set(listed.split(", "))
        assert scripts and all((REPOSITORY / "script" / name).is_file() for name in scripts), scripts


def test_the_weekly_workflow_runs_all_of_torture():
    in_script = re.search(r"^targets=\((.*)\)$", (REPOSITORY / "script/torture").read_text("utf-8"), re.M)[1]
    in_workflow = re.search(r"target: \[(.*?)\]", (REPOSITORY / ".github/workflows/torture.yml").read_text("utf-8"), re.S)[1]
    assert in_script.split() == in_workflow.replace(",", " ").split()


def test_the_image_is_built_with_all_that_meson_asks_for():
    """What .dockerignore leaves out is not there for the Dockerfile."""
    kept = re.findall(r"^!(.*)$", (REPOSITORY / ".dockerignore").read_text("utf-8"), re.M)
    assert all((REPOSITORY / path).exists() for path in kept)
    folders = set(re.findall(r"subdir\('(.*)'\)", (REPOSITORY / "meson.build").read_text("utf-8"))) - {"tests/fuzz"}
    for folder in folders:
        assert any(f"{folder}/meson.build/".startswith(f"{path}/") for path in kept), folder


def test_there_is_one_version():
    version = re.search(r"^ *version: '(.*)'", (REPOSITORY / "meson.build").read_text("utf-8"), re.M)[1]
    assert run("script/version") == run("script/version", version) == (0, f"{version}\n")
    assert run("script/version", version + "1")[0] == 1
    assert run(BINARY, "--version") == (0, f"longline {version}\n")


@pytest.mark.skipif(not shutil.which("yamllint"), reason="yamllint is not installed")
def test_yaml_is_tidy():
    rules = {
        "braces": "disable",
        "document-start": "disable",
        "truthy": {"check-keys": False},
        "line-length": {"max": 140},
        "comments": {"min-spaces-from-content": 1},
    }
    config = json.dumps({"extends": "default", "rules": rules})
    assert run("yamllint", "-d", config, ".github", "packaging") == (0, "")
