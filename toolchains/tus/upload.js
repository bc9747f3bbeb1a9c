// Uploads a file with the protocol's own client, gives up midway once, and goes on from where the server says it stands.
// Arguments: endpoint, token, file, bytes per request. Prints the URL of the upload.
import { readFileSync } from "node:fs";
import { Upload } from "tus-js-client";

const [endpoint, token, path, chunkSize] = process.argv.slice(2);
const file = readFileSync(path);
const options = {
  endpoint,
  headers: { Authorization: `Bearer ${token}` },
  chunkSize: Number(chunkSize),
  metadata: { filename: "a.png", filetype: "image/png" },
};

function run(more, stopAfter = Infinity) {
  return new Promise((resolve, reject) => {
    const upload = new Upload(file, {
      ...options,
      ...more,
      onError: reject,
      onSuccess: () => resolve(upload.url),
      onChunkComplete: (_, sent) => {
        if (sent >= stopAfter && sent < file.length) upload.abort().then(() => resolve(upload.url), reject);
      },
    });
    upload.start();
  });
}

const url = await run({}, file.length / 2);
console.log(await run({ uploadUrl: url }));
