# `make run` and `make test` need Python 3.11+, pip and make; the targets below them need more.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
BUF := npx --yes --package=@bufbuild/buf@1.75.0 -- buf

.PHONY: run test lint lock docs docs-site docs-links proto proto-clients web test-protos test-openapi test-schemathesis test-conformance test-clients test-web test-docs test-grpcurl test-deploy test-tus test-oidc test-clamd test-h2spec test-fuzz test-corpus chaos resilience bench bench-clients train-shapes clean

run: $(RUN_STAMP)
	@exec $(BIN)/camserve up --with-parent

test: $(DEV_STAMP) lint
	$(BIN)/python -m pytest

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	rm -rf build/site
	$(SITE) . build/site
	@echo build/site/index.html

# Needs the internet: lists the links that lead elsewhere in build/links/output.txt, and tries each.
docs-links: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(SITE) --builder linkcheck . build/links

proto: $(DEV_STAMP)
	$(BIN)/python protos/generate.py

# Needs Node and Go: makes the stubs of the clients in other languages.
proto-clients:
	$(BUF) generate --template clients/go/buf.gen.yaml
	$(BUF) generate --template clients/typescript/buf.gen.yaml

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[schemathesis]'
	$(BIN)/python -m pytest toolchains/openapi

# Checks the running service against the public contract, and that the kit finds what is altered.
test-conformance: $(DEV_STAMP)
	$(BIN)/python -m pytest conformance/tests

# Needs Node, Go, Chromium, Java, Maven, Rust, CMake and gRPC for C++: calls the running service with every client.
test-clients: $(DEV_STAMP)
	$(BIN)/python -m pytest clients/python/tests
	npm install --prefix toolchains/clients/browser --no-audit --no-fund --no-package-lock --silent
	$(BIN)/python -m pytest toolchains/clients

# Needs Chromium (Debian: chromium), Node and Go: checks the playground's scripts, and uses it in the real browser.
test-web: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[web]'
	npm install --prefix clients/web --no-audit --no-fund --no-package-lock --silent
	clients/web/node_modules/.bin/tsc --project clients/web
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
	$(BIN)/python -m pytest clients/web/tests

# Needs Chromium, Go, Node and Java: builds the site and looks at it (screenshots in build/screenshots), and runs every snippet.
test-docs: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs,web]'
	$(BIN)/python -m pytest toolchains/docs

# Needs Go and Node: calls everything with the real grpcurl, and runs every command of docs/grpcurl.md.
test-grpcurl: $(DEV_STAMP)
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
	$(BIN)/python -m pytest toolchains/grpcurl

# Needs Go: checks the image, the Compose file, the Helm chart and the systemd units, and runs what they start.
test-deploy: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[deploy]'
	GOBIN=$(CURDIR)/toolchains/bin go install helm.sh/helm/v4/cmd/helm@v4.3.1
	GOBIN=$(CURDIR)/toolchains/bin go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2
	mv toolchains/bin/cmd toolchains/bin/compose-go
	$(BIN)/python -m pytest toolchains/deploy

# What the image installs, with hashes: after a change of dependencies.
lock: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[deploy]'
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python deploy/docker/lock.py

# Needs Node: uploads with tus-js-client, which browsers use.
test-tus: $(DEV_STAMP)
	npm install --prefix toolchains/tus --no-audit --no-fund --no-package-lock --silent
	$(BIN)/python -m pytest toolchains/tus

# Needs Node: takes the tokens of a real OpenID provider, and goes on when its key changes.
test-oidc: $(DEV_STAMP)
	npm install --prefix toolchains/oidc --no-audit --no-fund --no-package-lock --silent
	$(BIN)/python -m pytest toolchains/oidc

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.hostile.fuzz_decode $(FUZZ)

# Sends hostile images that others collected; the folder holds fuzz.tar.gz and fuzz.jsonl.
CORPUS ?= ../shared/corpora
test-corpus: $(DEV_STAMP)
	$(BIN)/python -m tests.hostile.corpus $(CORPUS)

# Kills, pauses and restarts every part under load, 20 kills each; `make chaos ARGS='--seed 7 --kills 2'`.
chaos: $(DEV_STAMP)
	$(BIN)/python -m tests.chaos $(ARGS)

# Limits, authentication, overload, bulkheads, faults, restarts, callers who leave or mean harm and health, in figures, in
# under ten minutes; `make resilience ARGS='--only overload'`, `--only routes`, `--quick`, `--seed 7`.
resilience: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.resilience $(ARGS)

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks

# Needs what test-clients needs, but for Chromium: what each client costs beside raw stubs, and the memory that an upload of a
# gigabyte takes, in a quarter of an hour; `make bench-clients ARGS='--quick'`, `--only go`, `--rounds 15`.
bench-clients: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.clients $(ARGS)

train-shapes: $(DEV_STAMP)
	$(BIN)/python -m training.train_shapes

$(RUN_STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "camserve needs Python 3.11 or newer; set PYTHON=...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing camserve and PyTorch, once: some minutes, 6 GB in $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV_STAMP): $(RUN_STAMP) clients/python/pyproject.toml conformance/pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --editable 'clients/python[cli]' --editable conformance
	@touch $@

clean:
	rm -rf $(VENV) .camserve build toolchains/bin toolchains/*/node_modules toolchains/clients/browser/node_modules
	rm -rf clients/typescript/node_modules clients/typescript/build clients/typescript/dist
	rm -rf clients/web/node_modules clients/web/screenshots
