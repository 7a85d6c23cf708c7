// The web page in headless Chromium against a daemon with a real model.
//
// usage: page_test.mjs PARED SCREENSHOTS          77: the browser, a library or the model is missing

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { models, registerModel, startDaemon } from "./daemon.mjs";

const [program, screenshots] = process.argv.slice(2);
const root = fileURLToPath(new URL("../..", import.meta.url));  // Debian 12 has Node.js 18: no import.meta.dirname
const chromium = "/usr/bin/chromium";
for (const needed of [chromium, join(root, ".web-test/node_modules/playwright-core"), join(models, "mnist-conv/mnist-conv.onnx"),
                      join(models, "datasets/mnist-5k/dataset.json")]) {
  if (!existsSync(needed)) {
    console.log(`skipped: there is no ${needed}`);
    process.exit(77);
  }
}
const playwright = createRequire(join(root, ".web-test/"))("playwright-core");

let daemon, browser, page, zoo;
const faults = [];  // what the page complained of
const expected = /status of 40[014]/;

async function newPage(options = {}) {
  const made = await browser.newPage({ viewport: { width: 1200, height: 900 }, acceptDownloads: true, ...options });
  made.on("pageerror", (error) => faults.push(error.message));
  made.on("console", (message) => {
    if (message.type() === "error" && !expected.test(message.text())) faults.push(message.text());
  });
  made.setDefaultTimeout(30000);
  return made;
}

async function open(hash, heading, at = page) {
  await at.goto(`${daemon.url}/${hash}`);
  await at.locator("h1", { hasText: heading }).waitFor();
}

async function shoot(name, at = page) {
  await at.waitForTimeout(150);  // a plot is drawn in the next frame
  await at.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
}

before(async () => {
  mkdirSync(screenshots, { recursive: true });
  zoo = mkdtempSync(join(tmpdir(), "pared-zoo-"));
  copyFileSync(join(models, "mnist-conv/mnist-conv.onnx"), join(zoo, "digits.onnx"));
  writeFileSync(join(zoo, "broken.onnx"), "no model");
  daemon = await startDaemon(program, { model_roots: [zoo] });
  await registerModel(daemon.url, "mnist-conv");
  browser = await playwright.chromium.launch({ executablePath: chromium, args: ["--no-sandbox"] });
  page = await newPage();
});

after(async () => {
  await browser?.close();
  await daemon?.stop();
  rmSync(zoo, { recursive: true, force: true });
  assert.deepEqual(faults, []);
});

test("allows nothing inline and nothing from elsewhere", async () => {
  const answer = await fetch(daemon.url);
  const policy = answer.headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  const text = await answer.text();
  assert.doesNotMatch(text, /<script(?![^>]* src=)/);
  assert.doesNotMatch(text, /\son\w+=|\sstyle=|https?:/);
  const again = await fetch(daemon.url, { headers: { "if-none-match": answer.headers.get("etag") } });
  assert.equal(again.status, 304);
});

test("shows a fault of the form where it is, and submits what is right", async () => {
  await open("#/submit", "Submit a job");
  await page.getByLabel("Calibration data").selectOption("mnist-5k");
  await page.getByLabel("Samples").fill("64");
  await page.getByLabel("Timed runs").fill("3");
  await page.getByRole("button", { name: "Add chain" }).click();
  const second = page.locator("fieldset", { hasText: "Chain" }).filter({ has: page.locator('input[value="chain-2"]') }).last();
  await second.getByLabel("Pass to add").selectOption("magnitude_prune");
  await second.getByRole("button", { name: "Add pass" }).click();
  const sparsity = second.getByLabel("sparsity", { exact: true }).first();
  await sparsity.evaluate((input) => { input.removeAttribute("max"); input.value = "7"; });
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  await page.getByText("must be between").waitFor();
  assert.equal(await sparsity.getAttribute("aria-invalid"), "true");
  await shoot("submit");
  await sparsity.fill("0.8");
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  await page.locator("h1", { hasText: "Job 1: mnist-conv" }).waitFor();
});

test("follows the job to its end without being loaded again", async () => {
  await page.locator(".chip.state-succeeded").waitFor();
  const rows = page.locator("tbody tr");
  await rows.nth(2).waitFor();
  assert.deepEqual(await rows.locator("td:nth-child(4)").allInnerTexts(), ["baseline", "int8", "chain-2"]);
  const job = await (await fetch(`${daemon.url}/v1/jobs/1`)).json();
  assert.deepEqual(job.spec.chains[1].passes[0].sparsity, 0.8);
  assert.equal(job.spec.calibration.samples, 64);
  await shoot("job");
  await open("#/jobs", "Jobs");
  await page.locator(".chip.state-succeeded").waitFor();
});

test("filters the history, and marks where a filter is wrong", async () => {
  await open("#/runs", "History");
  await page.keyboard.press("/");
  await page.keyboard.type('chain = "int8"');
  await page.keyboard.press("Enter");
  await page.getByText("1 run", { exact: true }).waitFor();
  assert.deepEqual(await page.locator("tbody td:nth-child(4)").allInnerTexts(), ["int8"]);
  await page.locator("[data-filter]").fill("top1 <");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  assert.match(await page.locator("pre").innerText(), /^top1 <\n {5,6}\^$/);
});

test("walks the front by keys, pins and compares", async () => {
  await open("#/pareto", "Fronts");
  const plot = page.locator(".plot canvas");
  await plot.waitFor();
  await page.waitForTimeout(150);
  await plot.focus();
  for (const key of ["ArrowRight", "p", "ArrowRight", "p"]) await page.keyboard.press(key);
  assert.equal(await page.locator("#pins button").count(), 3);
  await shoot("front");
  await page.getByRole("button", { name: "Compare" }).click();
  await page.locator("h1", { hasText: "Compare" }).waitFor();
  await page.locator("td", { hasText: /^size_bytes$/ }).waitFor();
  for (const name of ["density", "sqnr_db", "time_us"]) {
    await page.locator("td", { hasText: new RegExp(`^evaluate/report/layers/.*/${name}$`) }).first().waitFor();
  }
  await shoot("compare");
});

test("shows a run with its layers, keeps a note, hands out its file", async () => {
  await open("#/runs/3", "Run 3: mnist-conv chain-2");
  const titles = await page.locator(".bars canvas").evaluateAll((all) => all.map((canvas) => canvas.getAttribute("aria-label")));
  for (const title of ["sparsity", "SQNR of the layer's output against the input model", "time, µs"]) {
    assert.ok(titles.some((found) => found.startsWith(title)), `there are no bars of ${title} among ${titles}`);
  }
  await page.getByText("As a table").click();
  const columns = await page.locator("details[open] thead th").allInnerTexts();
  for (const title of ["Layer", "sparsity", "time, µs", "operator"]) {
    assert.ok(columns.includes(title), `there is no column ${title} among ${columns}`);
  }
  await page.getByLabel("Note").fill("for the phone");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("saved").waitFor();
  const run = await (await fetch(`${daemon.url}/v1/runs/3`)).json();
  assert.equal(run.note, "for the phone");
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: /Download/ }).click()]);
  assert.equal(file.suggestedFilename(), "mnist-conv-chain-2.onnx");
  assert.equal(createHash("sha256").update(readFileSync(await file.path())).digest("hex"), run.artifact);
  await shoot("run");
});

test("shows kernels and scales of a quantized run", async () => {
  await open("#/runs/2", "Run 2: mnist-conv int8");
  await page.getByText("As a table").click();
  const table = page.locator("details[open]", { has: page.locator("th", { hasText: "operator" }) });
  const columns = await table.locator("thead th").allInnerTexts();
  for (const title of ["kernel", "scale of the input", "scale of the output"]) {
    assert.ok(columns.includes(title), `there is no column ${title} among ${columns}`);
  }
  const { reports } = await (await fetch(`${daemon.url}/v1/runs/2`)).json();
  const { layers } = reports.at(-1).report;
  const convolutions = layers.filter((layer) => layer.sqnr_db !== undefined && layer.macs > 0);
  assert.ok(convolutions.length >= 2, JSON.stringify(layers));
  for (const layer of convolutions) {
    assert.ok(layer.kernel && layer.input_scale > 0 && layer.weight_scale_max > 0 && layer.time_us > 0, JSON.stringify(layer));
  }
});

test("follows a night to its report", async () => {
  const spec = { root: zoo, calibration: { dataset: "mnist-5k", samples: 16 }, evaluate: { dataset: "mnist-5k", samples: 50, runs: 1 },
                 chains: [{ name: "int8", passes: [{ pass: "quantize_int8" }] }] };
  const answer = await fetch(`${daemon.url}/v1/batches`, { method: "POST", body: JSON.stringify(spec) });
  assert.equal(answer.status, 201, await answer.clone().text());
  await open("#/nights", "Nights");
  await page.getByRole("link", { name: "1", exact: true }).click();
  await page.locator("h1", { hasText: "Night 1" }).waitFor();
  await page.locator(".chip.state-succeeded").waitFor();
  assert.deepEqual((await page.locator("tbody td:nth-child(2)").allInnerTexts()).sort(), ["refused", "run"]);
  await page.locator("td", { hasText: "not an ONNX model" }).waitFor();
  await shoot("night");
});

test("shows a search's candidates, its front and what failed", async () => {
  const spec = { model: "mnist-conv", evaluate: { dataset: "mnist-5k", samples: 100, runs: 0 },
                 chains: [{ name: "p", passes: [{ pass: "magnitude_prune", reconstruct: "off" }] }],
                 search: { objectives: [{ metric: "size_compressed_bytes" }, { metric: "top1_drop" }],
                           bounds: [{ metric: "top1_drop", max: 0.01 }], budget: { candidates: 6 },
                           over: [{ pass: "magnitude_prune", option: "sparsity", values: [0.3, 0.5, 0.98] },
                                  { pass: "magnitude_prune", option: "exclude", values: [[], ["gone"]] }] } };
  const answer = await fetch(`${daemon.url}/v1/jobs`, { method: "POST", body: JSON.stringify(spec) });
  assert.equal(answer.status, 201, await answer.clone().text());
  const { id } = await answer.json();
  await open(`#/jobs/${id}`, `Job ${id}`);
  await page.locator(".chip.state-succeeded").first().waitFor();
  await page.getByText("6 of 6 candidates").waitFor();
  await page.getByText("bounds met", { exact: true }).waitFor();
  const { search } = await (await fetch(`${daemon.url}/v1/jobs/${id}`)).json();
  const tables = page.locator("table");
  assert.deepEqual(await tables.nth(0).locator("tbody td:nth-child(2)").allInnerTexts(), search.front.map((entry) => entry.chain));
  assert.equal(await tables.nth(0).locator("tr", { hasText: "best" }).locator("td:nth-child(2)").innerText(), search.best.chain);
  assert.deepEqual(await tables.nth(1).locator("tbody td:nth-child(2)").allInnerTexts(), search.failed.map((entry) => entry.chain));
  assert.ok((await tables.nth(1).innerText()).includes('"gone" matches no node'));
  await shoot("search");
  await page.getByRole("link", { name: "All candidates" }).click();
  await page.getByText("7 runs", { exact: true }).waitFor();  // with the baseline
  const narrow = await newPage({ viewport: { width: 400, height: 800 } });
  await open(`#/jobs/${id}`, `Job ${id}`, narrow);
  assert.ok(await narrow.evaluate(() => document.scrollingElement.scrollWidth) <= 400);
  await narrow.close();
});

test("says that a page or a run is not there", async () => {
  await open("#/runs/999", "That did not work");
  await page.getByText("there is no run 999").waitFor();
  await open("#/nowhere", "That did not work");
});

test("needs no more than 400 pixels, in light and dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const narrow = await newPage({ viewport: { width: 400, height: 800 }, colorScheme });
    for (const [hash, heading] of [["#/jobs", "Jobs"], ["#/jobs/1", "Job 1"], ["#/submit", "Submit"], ["#/runs", "History"],
                                   ["#/pareto", "Fronts"], ["#/runs/3", "Run 3"], ["#/compare?runs=1,3", "Compare"], ["#/nights", "Nights"], ["#/nights/1", "Night 1"]]) {
      await open(hash, heading, narrow);
      const width = await narrow.evaluate(() => document.scrollingElement.scrollWidth);
      assert.ok(width <= 400, `${hash} is ${width} pixels wide`);
    }
    const ground = await narrow.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(ground, colorScheme === "dark" ? "rgb(17, 23, 28)" : "rgb(255, 255, 255)");
    await shoot(`narrow-${colorScheme}`, narrow);
    await narrow.close();
  }
});

test("asks for a token and goes on with it", async () => {
  const sha256 = createHash("sha256").update("secret").digest("hex");
  const guarded = await startDaemon(program, { tokens: [{ name: "me", sha256, scope: "write", expires_ms: 0 }] });
  try {
    const stranger = await newPage();
    await stranger.goto(`${guarded.url}/#/runs`);
    await stranger.locator("#token-text").fill("secret");
    await stranger.keyboard.press("Enter");
    await stranger.getByText("No run matches").waitFor();
    await stranger.close();
  } finally {
    await guarded.stop();
  }
});
