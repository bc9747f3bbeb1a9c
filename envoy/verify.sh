#!/usr/bin/env bash
# Checks a running edge from outside with curl: EDGE_URL=http://127.0.0.1:8080 TOKEN=$(camserve token --tenant t) verify.sh
set -uo pipefail

: "${EDGE_URL:?the address of the edge}" "${TOKEN:?a token, as camserve token prints it}"
edge=${EDGE_URL%/}
body=$(mktemp) head=$(mktemp)
trap 'rm -f "$body" "$head"' EXIT
failures=0

# expect STATUS CODE curl-arguments: the status, the code of the error (- for none), one id in header and body.
expect() {
  local status=$1 code=$2 found problem=""
  shift 2
  found=$(curl -sk --path-as-is -m 30 -o "$body" -D "$head" -w '%{http_code}' "$@")
  [ "$found" = "$status" ] || problem="status $found, not $status"
  local id
  id=$(tr -d '\r' <"$head" | sed -n 's/^request-id: //Ip' | tail -n 1)
  [ -n "$id" ] || problem="$problem; no request-id"
  if [ "$code" != - ]; then
    grep -q "\"code\":\"$code\"" "$body" || problem="$problem; code is not $code"
    grep -q "\"request_id\":\"$id\"" "$body" || problem="$problem; request_id is not the header's"
    grep -qi '^content-type: application/json' "$head" || problem="$problem; not application/json"
  fi
  report "$problem" "$*"
}

# has HEADER-PATTERN: a header of the last response.
has() { report "$(grep -qi "$1" "$head" || echo "no header $1")" "header $1"; }

lacks() { report "$(! grep -qi "$1" "$head" "$body" || echo "found $1")" "nothing like $1"; }

report() {
  local what=${2//$TOKEN/TOKEN}
  if [ -z "$1" ]; then
    echo "ok      ${what:0:140}"
  else
    echo "FAILED  ${what:0:140}: ${1#; }"
    failures=$((failures + 1))
  fi
}

auth=(-H "Authorization: Bearer $TOKEN")
json=(-H 'Content-Type: application/json')
object=$edge/v1/objects/obj_0123456789abcdefghij

echo "# public routes and tokens"
expect 200 - "$edge/v1/health"
expect 200 - "$edge/.well-known/jwks.json"
expect 401 auth.missing_token "$edge/v1/models"
has '^www-authenticate: Bearer realm="camserve"'
expect 401 auth.invalid_token "$edge/v1/models" -H 'Authorization: Bearer x'
expect 401 auth.missing_token "$edge/v1/models?access_token=$TOKEN"
expect 200 - "$edge/v1/models" "${auth[@]}"
lacks '^x-envoy\|^grpc-'

echo "# ways around a token"
for path in //v1/models /V1/models /v1/./models /v1/health/../models '/v1/models;x' /v1/models. /v1/health/ /index.html \
  /camserve.v1.ModelService/ListModels /grpc.health.v1.Health/Check \
  /grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo; do
  expect 401 auth.missing_token "$edge$path"
done
expect 400 param.invalid "$edge/v1%2fmodels"
expect 401 auth.missing_token -X DELETE "$edge/v1/models"

echo "# routes"
expect 404 route.not_found "$edge/unknown" "${auth[@]}"
expect 404 route.not_found "$edge/v1/objects/obj_short" "${auth[@]}"
expect 405 method.not_allowed -X DELETE "$edge/v1/models" "${auth[@]}"
has '^allow: GET'
expect 405 - -I "$edge/v1/models" "${auth[@]}"
expect 415 media.unsupported "$edge/v1/infer" "${auth[@]}" -H 'Content-Type: text/plain' -d '{}'
expect 415 media.unsupported "$edge/v1/infer" "${auth[@]}" -H 'Content-Type:' -d '{}'
expect 400 param.invalid "$object?object_id=obj_another0123456789"
expect 400 param.invalid "$object?%6FbjectId=obj_another0123456789"
expect 400 param.invalid "$edge/v1/models?unknown=1" "${auth[@]}"

echo "# bodies"
expect 400 json.malformed "$edge/v1/infer" "${auth[@]}" "${json[@]}" -d '{"secret"'
lacks secret
nested=$(printf '[%.0s' {1..60})$(printf ']%.0s' {1..60})
expect 400 json.malformed "$edge/v1/infer" "${auth[@]}" "${json[@]}" \
  -d "{\"model\": \"shapes\", \"grad_cam\": {\"resolution\": $nested}}"
expect 411 upload.length_required "$edge/v1/infer?model=shapes" "${auth[@]}" -H 'Content-Type: image/png' \
  -H 'Transfer-Encoding: chunked' -H 'X-Camserve-Content-Length: 5' --data-binary 12345

echo "# heads"
expect 400 param.invalid "$edge/v1/health" -H 'under_score: x'
expect 400 param.invalid "$edge/v1/health" -H "x-long: $(printf 'x%.0s' {1..40000})"
expect 200 - "$edge/v1/models" "${auth[@]}" -H "x-long: $(printf 'x%.0s' {1..28000})"
expect 200 - "$edge/v1/models" "${auth[@]}" -H 'X-Request-Id: mine' -H 'X-Http-Status: 500' -H 'X-Error-Json: {}'
lacks '^request-id: mine'

if [ "$failures" -gt 0 ]; then
  echo "$failures checks failed"
  exit 1
fi
echo "every check passed"
