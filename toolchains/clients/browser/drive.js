// Serves a page, chooses files in it with a real Chromium, runs a script there and prints what it then says.
// node drive.js PORT CHROMIUM SCRIPT FILE...
import { createServer } from "node:http";

import { build } from "esbuild";
import { chromium } from "playwright-core";

const [port, executablePath, script, ...files] = process.argv.slice(2);
const define = { sessionToken: JSON.stringify(process.env.CAM_TOKEN), EDGE: JSON.stringify(process.env.CAM_EDGE) };
const bundle = await build({
  entryPoints: [script],
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  minify: true,
  define,
  write: false,
});
const PAGE = "<!doctype html><meta charset=utf-8><input type=file multiple><img><p></p><pre></pre>";
const server = createServer((request, response) => {
  const isScript = request.url === "/script.js";
  response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? bundle.outputFiles[0].contents : PAGE);
});
await new Promise((resolve) => server.listen(Number(port), "127.0.0.1", resolve));
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage();
  const wrong = new Promise((_, reject) => page.on("pageerror", reject));
  page.on("console", (message) => console.error(message.text()));
  await page.goto(`http://127.0.0.1:${port}/`);
  await page.setInputFiles("input", files);
  await page.addScriptTag({ type: "module", url: "/script.js" });
  const said = () => document.querySelector("p").textContent || document.querySelector("pre").textContent;
  await Promise.race([page.waitForFunction(said, null, { timeout: 120_000 }), wrong]);
  await page.evaluate(() => document.querySelector("img").src && document.querySelector("img").decode());
  console.log(
    JSON.stringify(
      await page.evaluate(() => ({
        label: document.querySelector("p").textContent,
        width: document.querySelector("img").naturalWidth,
        report: JSON.parse(document.querySelector("pre").textContent || "null"),
      })),
    ),
  );
} finally {
  await browser.close();
  server.close();
}
