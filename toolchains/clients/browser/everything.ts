/** What the page of the test does: everything that a browser does otherwise than Node. */
import { CamserveError, createClient, Job_Status } from "camserve-client";

const client = createClient(EDGE, { token: () => sessionToken });
const files = document.querySelector<HTMLInputElement>("input[type=file]")!.files!;
const [photo, slide] = [files[0]!, files[1]!];
const report: Record<string, unknown> = {};

const sent: number[] = [];
const stored = await client.upload(slide, { onProgress: (progress) => sent.push(progress.sentBytes) });
report["upload"] = [Number(stored.sizeBytes) === slide.size, sent.length > 6, sent.at(-1) === slide.size];
await client.uploads.deleteUpload({ storageId: stored.storageId });

const image = await client.input(photo);
const inputs = ["a", "b", "c"].map((id) => ({ id, image }));
const items: string[] = [];
for await (const item of client.inferBatch({ model: "shapes", inputs })) {
  items.push(`${item.id} ${item.result?.classes[0]?.id}`);
}
report["batch"] = items.sort();

const { jobId } = await client.jobs.createJob({ model: "shapes", inputs });
report["job"] = Job_Status[(await client.waitJob(jobId)).status];

report["refused"] = await client.infer(photo, { model: "none" }).catch((error: unknown) =>
  error instanceof CamserveError ? [error.code, error.status, error.requestId !== undefined] : String(error),
);
report["streamed"] = (await client.infer(new Blob([photo, new Uint8Array(2_000_000)]), { model: "shapes" })).classes[0]?.id;

document.querySelector("pre")!.textContent = JSON.stringify(report);

declare const EDGE: string;
declare const sessionToken: string;
