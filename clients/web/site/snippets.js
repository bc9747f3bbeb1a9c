/** The calls that the page made, as people would write them. */

/** @typedef {import("./heat.js").View} View */
/**
 * `fileName` is the image's; `request` an InferRequest without it.
 * @typedef {{kind: "infer", fileName: string, request: any}} InferCall
 */
/**
 * `request` is a CreateJobRequest whose inputs are stored images; `files` tells the files that they came from.
 * @typedef {{kind: "job", files: Array<{name: string, type: string}>, request: any}} JobCall
 */

const NOTES = {
  curl: "In a shell, beside the image, with the token in $TOKEN.",
  grpcurl: "In a shell, in a checkout of camserve for its protos, with the token in $TOKEN. The edge speaks gRPC too.",
  Python: "With camserve-client, beside the image, with the token in the environment as TOKEN.",
};

/** @typedef {keyof typeof NOTES} Language */
export const LANGUAGES = /** @type {Language[]} */ (Object.keys(NOTES));

/**
 * Returns a call that answers what is on the screen, and a note on how to run it. The map comes in the colours of
 * `view` over the image; the page itself asked for grey levels and did that here.
 * @param {Language} language
 * @param {InferCall | JobCall} made
 * @param {View} view
 * @param {URL} address  of the page
 * @returns {{note: string, code: string}}
 */
export function snippet(language, made, view, address) {
  const note = NOTES[language];
  if (made.kind === "infer") {
    return { note, code: { curl, grpcurl, Python: python }[language](made, view, address) };
  }
  return { note, code: { curl: jobCurl, grpcurl: jobGrpcurl, Python: jobPython }[language](made, view, address) };
}

/** Writes grad_cam as it looks. @param {any} cam @param {View} view */
const seen = (cam, view) => (cam.enabled ? { ...cam, colormap: view.colormap, overlay: true, alpha: view.opacity } : cam);

/** @param {unknown} value @returns {string} */
const json = (value) => JSON.stringify(value);

/** Quotes a text for a shell. @param {string} text */
const shell = (text) => (/^[\w.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`);

/** Quotes a text for a here-document that fills in variables. @param {string} text */
const here = (text) => text.replaceAll(/[\\$`]/g, String.raw`\$&`);

/** Quotes the name of a file for curl's --form. @param {string} name */
const formFile = (name) => shell(`image=@"${name.replaceAll(/["\\]/g, String.raw`\$&`)}"`);

/** Names a file so that no program takes it for an option. @param {string} name */
const path = (name) => shell(name.startsWith("-") ? `./${name}` : name);

/** @param {string} proto @param {string} method @param {URL} address @param {string} message */
function grpc(proto, method, { hostname, port, protocol }, message) {
  const secure = protocol === "https:";
  return `grpcurl ${secure ? "" : "-plaintext "}-import-path protos -import-path protos/third_party \\
  -proto camserve/v1/${proto}.proto -H "authorization: Bearer $TOKEN" -d @ \\
  ${hostname}:${port || (secure ? 443 : 80)} camserve.v1.${method} <<END
${message}
END`;
}

/** @param {InferCall} made @param {View} view @param {URL} address */
function curl({ fileName, request }, view, address) {
  const asked = { ...request, grad_cam: seen(request.grad_cam, view) };
  return `curl -sS ${address.origin}/v1/infer -H "Authorization: Bearer $TOKEN" \\
  -F ${formFile(fileName)} \\
  --form-string ${shell(`request=${json(asked)}`)}
`;
}

/** @param {InferCall} made @param {View} view @param {URL} address */
function grpcurl({ fileName, request }, view, address) {
  const asked = { ...request, grad_cam: seen(request.grad_cam, view) };
  const message = `${here(json(asked)).slice(0, -1)},"image":{"bytes":"$IMAGE"}}`;
  return `IMAGE=$(base64 < ${path(fileName)} | tr -d '\\n')
${grpc("inference", "InferenceService/Infer", address, message)}
`;
}

/** @param {InferCall} made @param {View} view @param {URL} address */
function python({ fileName, request }, view, address) {
  const { resolution } = request.grad_cam;
  const cam = pythonCam(request.grad_cam, view, resolution ? `(${resolution.width}, ${resolution.height})` : "None", 8);
  return `import os

from camserve_client import Cam, Client

with Client(${json(address.origin)}, token=os.environ["TOKEN"]) as client:
    answer = client.infer(
        ${json(fileName)},
        model=${json(request.model)},
        version=${json(request.model_version)},
        top_k=${request.classify.top_k},${cam && `\n        cam=${cam},`}
    )
    for label, class_id, probability in answer.classes:
        print(f"{probability:.1%} {label} ({class_id})")
${cam && '    answer.heatmap.save("heatmap.png")\n'}`;
}

/** Writes a Cam; nothing where no heatmap was asked for. @param {any} cam @param {View} view @param {string} size @param {number} indent */
function pythonCam(cam, view, size, indent) {
  if (!cam.enabled) return "";
  const fields = [
    `method=${json(cam.method)}`,
    `layer=${json(cam.layer)}`,
    ...(cam.target ? [`target=${json(cam.target)}`] : []),
    `colormap=${json(view.colormap)}`,
    "overlay=True",
    `alpha=${view.opacity}`,
    `size=${size}`,
  ];
  const margin = " ".repeat(indent);
  return `Cam(\n${fields.map((field) => `${margin}    ${field},\n`).join("")}${margin})`;
}

/** @param {JobCall} made @param {View} view */
const jobRequest = ({ request }, view) => ({
  ...request,
  inputs: request.inputs.map((/** @type {any} */ input) => ({ ...input, grad_cam: seen(input.grad_cam, view) })),
});

/** @param {JobCall} made @param {URL} address */
function jobUploads({ files, request }, address) {
  const stored = files.map(({ name }, i) => `# ${json(name)} is ${request.inputs[i].image.storage_id}`);
  const [{ name, type } = { name: "", type: "" }] = files;
  return `# The images are stored already, by calls such as this one for the first of them:
#   curl -sS ${address.origin}/v1/uploads -H "Authorization: Bearer $TOKEN" \\
#     -H ${shell(`Content-Type: ${type || "application/octet-stream"}`)} --data-binary ${shell(`@${name}`)}
${stored.join("\n")}
`;
}

/** @param {JobCall} made @param {View} view @param {URL} address */
function jobCurl(made, view, address) {
  return `${jobUploads(made, address)}JOB=$(curl -sS ${address.origin}/v1/jobs -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' \\
  --data-raw ${shell(json(jobRequest(made, view)))} |
  sed -n 's/.*"job_id": *"\\([^"]*\\)".*/\\1/p')
curl -sSN "${address.origin}/v1/jobs/$JOB/events" -H "Authorization: Bearer $TOKEN"
`;
}

/** @param {JobCall} made @param {View} view @param {URL} address */
function jobGrpcurl(made, view, address) {
  return `${jobUploads(made, address)}JOB=$(${grpc("jobs", "JobService/CreateJob", address, here(json(jobRequest(made, view))))}
)
JOB=$(echo "$JOB" | sed -n 's/.*"jobId": *"\\([^"]*\\)".*/\\1/p')
${grpc("jobs", "JobService/WatchJob", address, '{"job_id":"$JOB"}')}
`;
}

/** @param {JobCall} made @param {View} view @param {URL} address */
function jobPython({ files, request }, view, address) {
  const { classify, grad_cam } = request.inputs[0];
  const cam = pythonCam(grad_cam, view, "size", 8);
  const inputs = files.map(({ name }, i) => {
    const { id, grad_cam: { resolution } } = request.inputs[i];
    const size = resolution ? `(${resolution.width}, ${resolution.height})` : "None";
    return `    Input(${json(name)}, id=${json(id)}, ask=ask(${size})),\n`;
  });
  return `import os

from camserve_client import Ask, Cam, Client, Input


def ask(size):
    return Ask(
        top_k=${classify.top_k},${cam && `\n        cam=${cam},`}
    )


images = [
${inputs.join("")}]
with Client(${json(address.origin)}, token=os.environ["TOKEN"]) as client:
    job = client.submit(
        images, model=${json(request.model)}, version=${json(request.model_version)}, ttl_hours=${request.ttl_hours}
    )
    for item in job.watch():
        print(item.id, item.result.top.label if item.result else item.error.code)
`;
}
