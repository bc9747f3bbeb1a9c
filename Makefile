# `make run` and `make test` need Python 3.11+, pip and make; the targets below them need more.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
# pip 23.0 announces at every `--no-binary` in a lock what later versions do.
PIP := $(BIN)/python -W ignore:DEPRECATION -m pip install --quiet --disable-pip-version-check
BUF := npx --yes --package=@bufbuild/buf@1.75.0 -- buf

# $(call install,LOCK,PROJECTS): what the lock names, byte for byte, then the projects themselves. LOCKED=no takes the newest
# that pyproject.toml allows, for platforms that the locks do not know and for a PyTorch of one's own.
LOCKED ?= yes
ifeq ($(LOCKED),no)
install = $(PIP) $(2)
else
install = { $(PIP) -r requirements/build.txt && $(PIP) --no-build-isolation -r requirements/$(1).txt \
	&& $(PIP) --no-build-isolation --no-deps $(2); } \
	|| { echo "requirements/$(1).txt could not be installed; LOCKED=no takes what pyproject.toml allows" >&2; exit 1; }
endif

# The tools of releases have a place of their own: nothing of them is part of what runs or is tested.
TOOLS := build/tools
TOOLS_STAMP := $(TOOLS)/.installed

.PHONY: run test lint docs docs-site docs-links proto proto-clients proto-java web test-protos test-openapi test-schemathesis test-conformance test-replicas test-cluster test-clients test-web test-docs test-grpcurl test-deploy test-tus test-oidc test-ray test-clamd test-metrics test-traces test-h2spec test-fuzz test-corpus chaos resilience test-release lock licences audit release bench bench-clients bench-peers train-shapes clean

run: $(RUN_STAMP)
	@exec $(BIN)/camserve up --with-parent

# Tests run side by side, each file in one process; those that a busy machine would fail have it for themselves afterwards.
WORKERS ?= 2
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile
test: $(DEV_STAMP) lint
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not alone"
	$(BIN)/python -m pytest -m alone

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV_STAMP)
	$(BIN)/python -m docs.generate

# The pages as a site, in build/site; what is wrong with a page or a link stops it.
SITE = $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --conf-dir docs/site --doctree-dir build/doctrees
docs-site: $(DEV_STAMP)
	$(call install,docs,--editable '.[docs]')
	rm -rf build/site
	$(SITE) . build/site
	@echo build/site/index.html

# Needs the internet: lists the links that lead elsewhere in build/links/output.txt, and tries each.
docs-links: $(DEV_STAMP)
	$(call install,docs,--editable '.[docs]')
	$(SITE) --builder linkcheck . build/links

proto: $(DEV_STAMP)
	$(BIN)/python protos/generate.py

# Needs Node and Go: makes the stubs of the clients in other languages.
proto-clients:
	$(BUF) generate --template clients/go/buf.gen.yaml
	$(BUF) generate --template clients/typescript/buf.gen.yaml

# Needs Node, Java and Maven: makes with buf the stubs that Maven compiles, in clients/java/target/stubs.
proto-java:
	mvn --file clients/java/pom.xml --non-recursive --batch-mode --no-transfer-progress --quiet \
		kr.motd.maven:os-maven-plugin:detect dependency:copy@generators
	chmod +x clients/java/target/generators/*
	$(BUF) generate --template clients/java/buf.gen.yaml

# What the playground knows of the service.
web: $(DEV_STAMP)
	$(BIN)/python -m clients.web.generate

# Needs Node: lints, checks the format and compares with the released contract.
test-protos:
	$(BUF) lint
	$(BUF) format --diff --exit-code
	$(BUF) build -o $(VENV)/now.binpb
	$(BUF) breaking $(VENV)/now.binpb --against protos/released/v1.binpb

# Needs Node and Go: lints the OpenAPI document and compares it with the released one.
test-openapi:
	npx --yes --package=@redocly/cli@2.77.0 -- redocly lint --config toolchains/openapi/redocly.yaml docs/api/openapi.json
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/oasdiff/oasdiff@v1.37.0
	toolchains/bin/oasdiff breaking --fail-on ERR docs/released/openapi.json docs/api/openapi.json

# Sends what the OpenAPI document allows, and what it does not, to the real edge, for a minute or two.
test-schemathesis: $(DEV_STAMP)
	$(call install,schemathesis,--editable '.[schemathesis]')
	$(BIN)/python -m pytest toolchains/openapi

# Checks the running service against the public contract, and that the kit finds what is altered.
test-conformance: $(DEV_STAMP)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) conformance/tests

# What goes through the edge, and the kit, with three replicas behind it instead of one, in half an hour;
# `make test-replicas TESTS=tests/e2e/test_limits.py`.
TESTS ?= tests/e2e tests/edge conformance/tests
test-replicas: $(DEV_STAMP)
	CAMSERVE_TEST_REPLICAS=3 $(BIN)/python -m pytest $(SIDE_BY_SIDE) --timeout 300 $(TESTS)

# The tests of what is kept, on a cluster of three instead of one server.
test-cluster: $(DEV_STAMP)
	CAMSERVE_TEST_STORE=cluster $(BIN)/python -m pytest $(SIDE_BY_SIDE) --timeout 300 tests/stores tests/core

# Needs Node, Go, Chromium, Java, Maven, Rust, CMake and gRPC for C++: calls the running service with every client.
test-clients: $(DEV_STAMP)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) clients/python/tests
	npm install --prefix toolchains/clients/browser --no-audit --no-fund --no-package-lock --silent
	$(BIN)/python -m pytest toolchains/clients

# Needs Chromium (Debian: chromium), Node and Go: checks the playground's scripts, and uses it in the real browser.
test-web: $(DEV_STAMP)
	$(call install,web,--editable '.[web]')
	npm install --prefix clients/web --no-audit --no-fund --no-package-lock --silent
	clients/web/node_modules/.bin/tsc --project clients/web
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
	$(BIN)/python -m pytest clients/web/tests

# Needs Chromium, Go, Node and Java: builds the site and looks at it (screenshots in build/screenshots), and runs every snippet.
test-docs: $(DEV_STAMP)
	$(call install,docs,--editable '.[docs]')
	$(call install,web,--editable '.[web]')
	$(BIN)/python -m pytest toolchains/docs

# Needs Go and Node: calls everything with the real grpcurl, and runs every command of docs/grpcurl.md.
test-grpcurl: $(DEV_STAMP)
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
	$(BIN)/python -m pytest toolchains/grpcurl

# Needs Go: builds OpenTelemetry's own collector, and sends traces through it with deploy/opentelemetry/collector.yml.
test-traces: $(DEV_STAMP)
	GOBIN=$(CURDIR)/toolchains/bin go install go.opentelemetry.io/collector/cmd/builder@v0.165.0
	toolchains/bin/builder --config toolchains/traces/builder.yaml
	$(BIN)/python -m pytest toolchains/traces

# Needs Prometheus with promtool (Debian: prometheus): tries metrics, alerts and the dashboard's queries.
test-metrics: $(DEV_STAMP)
	$(BIN)/python -m pytest toolchains/metrics

# Needs Go: checks the image, the Compose file, the Helm chart and the systemd units, and runs what they start.
test-deploy: $(DEV_STAMP)
	$(call install,deploy,--editable '.[deploy]')
	GOBIN=$(CURDIR)/toolchains/bin go install helm.sh/helm/v4/cmd/helm@v4.3.1
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2
	mv toolchains/bin/cmd toolchains/bin/compose-go
	$(BIN)/python -m pytest toolchains/deploy

# Needs Node: uploads with tus-js-client, which browsers use.
test-tus: $(DEV_STAMP)
	npm install --prefix toolchains/tus --no-audit --no-fund --no-package-lock --silent
	$(BIN)/python -m pytest toolchains/tus

# Needs Node: takes the tokens of a real OpenID provider, and goes on when its key changes.
test-oidc: $(DEV_STAMP)
	npm install --prefix toolchains/oidc --no-audit --no-fund --no-package-lock --silent
	$(BIN)/python -m pytest toolchains/oidc

# Runs models on a Ray cluster of several nodes on this machine, and kills actors and nodes in the middle of batches.
test-ray: $(DEV_STAMP)
	$(call install,ray,--editable '.[ray]')
	$(BIN)/python -m pytest toolchains/ray

# Needs ClamAV's daemon (Debian: clamav-daemon): shows it images, good ones and one with a signature made by hand.
test-clamd: $(DEV_STAMP)
	$(BIN)/python -m pytest toolchains/clamd

# Needs Go: tries every rule of HTTP/2 on the edge, with h2spec.
test-h2spec: $(DEV_STAMP)
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
	$(BIN)/python -m pytest toolchains/h2spec

# Fuzzes the reading of images for a while, guided by coverage; `make test-fuzz FUZZ=-max_total_time=3600`, with other options of
# libFuzzer. Linux on x86-64 only.
FUZZ ?= -max_total_time=60
test-fuzz: $(DEV_STAMP)
	$(call install,fuzz,--editable '.[fuzz]')
	$(BIN)/python -m tests.hostile.fuzz_decode $(FUZZ)

# Sends hostile images that others collected; the folder holds fuzz.tar.gz and fuzz.jsonl.
CORPUS ?= ../shared/corpora
test-corpus: $(DEV_STAMP)
	$(BIN)/python -m tests.hostile.corpus $(CORPUS)

# Needs git and OpenSSH: rehearses a release of the last commit, with the packages that are installed, and tries to forge it.
test-release: $(DEV_STAMP) $(TOOLS_STAMP)
	$(BIN)/python -m pytest toolchains/release

# Writes requirements/ from what the pyproject.toml files ask for, and tries each platform, in three minutes;
# `make lock ARGS=--upgrade` takes the newest versions.
lock: $(TOOLS_STAMP)
	$(TOOLS)/bin/python -m release.lock $(ARGS)

# Looks at the licence of every package that is installed; requirements/licences.toml says what is allowed.
licences: $(DEV_STAMP) $(TOOLS_STAMP)
	$(BIN)/python -m release.licences run dev extras
	$(TOOLS)/bin/python -m release.licences tools

# Needs the internet: asks for known vulnerabilities of every locked package, and says NOT RUN where nobody answers;
# `make audit ARGS=--must-run` fails then.
audit: $(TOOLS_STAMP)
	$(TOOLS)/bin/python -m release.audit $(ARGS)

# Needs git and OpenSSH: makes the release of a tagged commit in build/release, and installs and tries it, in ten minutes and
# 6 GB: `make release KEY=~/.ssh/id_ed25519`. Without a key it is a rehearsal.
release: $(TOOLS_STAMP)
	$(TOOLS)/bin/python -m release $(if $(KEY),--key $(KEY),--rehearse)

# Kills, pauses and restarts every part under load, 20 kills each; `make chaos ARGS='--seed 7 --kills 2'`; with
# three servers instead of one: `CAMSERVE_TEST_REPLICAS=3 make chaos`.
chaos: $(DEV_STAMP)
	$(BIN)/python -m tests.chaos $(ARGS)

# Limits, authentication, overload, bulkheads, faults, restarts, callers who leave or mean harm and health, in figures, in
# under ten minutes; `make resilience ARGS='--only overload'`, `--only routes`, `--quick`, `--seed 7`.
resilience: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.resilience $(ARGS)

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks

# Other servers beside this one; they get an environment of their own, and PyTorch from this one's.
bench-peers: $(DEV_STAMP)
	test -d $(VENV)/peers || $(BIN)/python -m venv $(VENV)/peers
	$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' > \
		"$$($(VENV)/peers/bin/python -c 'import site; print(site.getsitepackages()[0])')/camserve.pth"
	$(VENV)/peers/bin/python -m pip install -q -r benchmarks/peers/requirements.txt
	$(BIN)/python -m benchmarks --only peers $(ARGS)

# Needs what test-clients needs, but for Chromium: what each client costs beside raw stubs, and the memory that an upload of a
# gigabyte takes, in a quarter of an hour; `make bench-clients ARGS='--quick'`, `--only go`, `--rounds 15`.
bench-clients: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.clients $(ARGS)

train-shapes: $(DEV_STAMP)
	$(BIN)/python -m training.train_shapes

$(RUN_STAMP): pyproject.toml requirements/build.txt requirements/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "camserve needs Python 3.11 or newer; set PYTHON=...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing camserve and PyTorch, once: some minutes, 6 GB in $(VENV)"
	@$(call install,run,--editable .)
	@touch $@

$(TOOLS_STAMP): requirements/build.txt requirements/release.txt
	test -d $(TOOLS) || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/build.txt -r requirements/release.txt
	@touch $@

$(DEV_STAMP): $(RUN_STAMP) clients/python/pyproject.toml conformance/pyproject.toml requirements/dev.txt
	@$(call install,dev,--editable '.[dev]' --editable 'clients/python[cli]' --editable conformance)
	@touch $@

clean:
	rm -rf $(VENV) .camserve build toolchains/bin toolchains/*/node_modules toolchains/clients/browser/node_modules
	rm -rf clients/typescript/node_modules clients/typescript/build clients/typescript/dist
	rm -rf clients/web/node_modules clients/web/screenshots
