"""Tests of the files in deploy/: schemas, commands, ports and the nginx configuration."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from talkinghead.cli.hydra_app.overrides import to_hydra
from talkinghead.cli.shared.command_output import take_format
from talkinghead.paths import conf_dir

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DEPLOYMENT, SERVICE, INGRESS = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
(BATCH,) = yaml.safe_load_all((DEPLOY / "kubernetes-batch.yaml").read_text())
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMMANDS = {
    "Dockerfile": json.loads(re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1]),
    "compose.yaml": COMPOSE["services"]["server"]["command"],
    "kubernetes.yaml": CONTAINER["args"],
}


@pytest.mark.parametrize(
    ("file", "schema"),
    [("deploy/compose.yaml", "compose-spec"), (".github/workflows/ci.yml", "github-workflows")],
)
def test_file_follows_its_schema(file, schema):
    pytest.importorskip("check_jsonschema", reason="needs the extra dev")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run(
        [*command, DEPLOY.parent / file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("manifest", [DEPLOYMENT, SERVICE, INGRESS, BATCH], ids=lambda m: m["kind"])
def test_manifest_follows_the_schema_of_kubernetes(manifest):
    validator = pytest.importorskip("kubernetes_validate", reason="needs the extra dev")
    validator.validate(manifest, validator.latest_version(), strict=True)


@pytest.mark.parametrize("file", COMMANDS)
def test_command_is_valid_and_listens_on_the_published_port(file, monkeypatch):
    monkeypatch.setenv("TALKINGHEAD_TOKEN", "secret")
    monkeypatch.setenv("TURN_PASSWORD", "a, b")
    command, *overrides = COMMANDS[file]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(command, to_hydra(overrides, command))
    assert cfg.token == "secret"
    assert f"EXPOSE {cfg.port}\n" in DOCKERFILE
    assert f"127.0.0.1:{cfg.port}/healthz" in DOCKERFILE
    assert CONTAINER["ports"] == [{"name": "http", "containerPort": cfg.port}]
    assert all(server.credential == "a, b" for server in cfg.ice_servers)


def test_kubernetes_manifests_refer_to_each_other():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == SERVICE["spec"]["selector"] == labels
    (port,) = SERVICE["spec"]["ports"]
    assert port["targetPort"] == CONTAINER["ports"][0]["name"]
    backend = INGRESS["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": SERVICE["metadata"]["name"], "port": {"name": port["name"]}}
    mounts = [mount["name"] for mount in CONTAINER["volumeMounts"]]
    assert mounts == [volume["name"] for volume in POD["volumes"]]


def test_batch_job_runs_each_shard_once():
    spec = BATCH["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (index,) = (variable for variable in container["env"] if variable["name"] == "SHARD")
    assert "job-completion-index" in index["valueFrom"]["fieldRef"]["fieldPath"]
    command, *arguments = [argument.replace("$(SHARD)", "3") for argument in container["args"]]
    as_json, overrides = take_format(arguments)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(command, to_hydra(overrides, command))
    assert as_json
    assert (cfg.shard, cfg.num_shards) == (3, spec["completions"])
    assert cfg.jobs == "s3://bucket/jobs.csv"


def test_steps_of_the_workflow_pass_shellcheck():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("needs the extra dev")
    workflow = yaml.safe_load((DEPLOY.parent / ".github/workflows/ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    # Expressions are replaced before the shell runs.
    script = "\n".join(re.sub(r"\$\{\{.*?\}\}", "value", step["run"]) for step in steps)
    command = [shellcheck, "--shell=bash", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert len(steps) > 8
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", DOCKERFILES)
def test_images_run_as_an_unprivileged_user_with_a_health_check(file):
    text = (DEPLOY / file).read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    assert re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)[1] == '["serve", "host=0.0.0.0"]'


@pytest.mark.parametrize("file", DOCKERFILES)
def test_dockerfile_copies_only_files_in_the_build_context(file):
    context = (DEPLOY / f"{file}.dockerignore").read_text().split()
    text = (DEPLOY / file).read_text()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
    for path in " ".join(copied).split():
        assert f"!{path}" in context
        assert (DEPLOY.parent / path).exists()


class _Backend(BaseHTTPRequestHandler):
    """A server that answers with its port and the received headers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"port": self.server.server_port, **self.headers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def backends():
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Backend) for _ in range(3)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(backends, tmp_path):
    """Run nginx before three servers, without TLS, and return its port."""
    if (nginx := shutil.which("nginx") or shutil.which("/usr/sbin/nginx")) is None:
        pytest.skip("needs nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = (DEPLOY / "nginx.conf").read_text()
    site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    site = re.sub(r"ssl_certificate.*;", "", site)
    servers = "".join(f"server 127.0.0.1:{backend};" for backend in backends)
    site = site.replace("server 127.0.0.1:8000;", servers)
    folders = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {tmp_path / name};" for name in folders)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {tmp_path / 'pid'}; error_log stderr; events {{}} "
        f"http {{ {paths}\n{site} }}"
    )
    command = [nginx, "-c", configuration, "-e", "stderr"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        yield port
        process.terminate()


def test_nginx_keeps_a_client_at_one_server_and_passes_headers(proxy):
    request = urllib.request.Request(
        f"http://127.0.0.1:{proxy}/v1/config",
        headers={"Host": "face.example.org:8443", "X-Forwarded-For": "1.2.3.4"},
    )
    answers = [json.load(urllib.request.urlopen(request)) for _ in range(6)]
    assert len({answer["port"] for answer in answers}) == 1
    assert answers[0]["Host"] == "face.example.org:8443"
    assert answers[0]["X-Forwarded-For"] == "127.0.0.1"


def test_nginx_passes_websockets(proxy):
    with socket.create_connection(("127.0.0.1", proxy)) as client:
        client.sendall(
            b"GET /v1/stream HTTP/1.1\r\nHost: face.example.org\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        answer = client.recv(4096)
    assert b'"Upgrade": "websocket"' in answer
    assert b'"Connection": "upgrade"' in answer
