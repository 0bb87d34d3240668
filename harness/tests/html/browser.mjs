// Opens reports in a headless Chromium: what it shows, on which screens, with and without JavaScript, and whether axe finds
// anything to object to. Called by ci/report-check.
//
//   node browser.mjs SMALL BIG SHOTS      folders of two reports, and where screenshots go

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readdirSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [small, big, shots] = process.argv.slice(2);
const require = createRequire(path.join(process.cwd(), "package.json"));
const puppeteer = await import(pathToFileURL(require.resolve("puppeteer-core")));
const axe = require.resolve("axe-core");

const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 375, height: 740, isMobile: true, hasTouch: true };

const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
let checks = 0;

/** Opens a page; whatever it loads from elsewhere, whatever it says of errors, and any dialog is a failure. */
async function open(file, { viewport = DESKTOP, dark = false, script = true } = {}) {
  const page = await browser.newPage();
  const trouble = [];
  page.on("dialog", async (dialog) => {
    trouble.push(`dialog: ${dialog.message()}`);
    await dialog.dismiss();
  });
  page.on("console", (message) => message.type() === "error" && trouble.push(message.text()));
  page.on("pageerror", (error) => trouble.push(String(error)));
  page.on("request", (request) => request.url().startsWith("file:") || trouble.push(`loads ${request.url()}`));
  await page.setViewport(viewport);
  await page.setJavaScriptEnabled(script);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  await page.goto(pathToFileURL(file).href, { timeout: 120_000 });
  assert.deepEqual(trouble, [], file);
  return page;
}

async function accessible(page, what) {
  await page.setBypassCSP(true);
  await page.reload({ timeout: 120_000 });
  await page.addScriptTag({ path: axe });
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const told = violations.map((of) => `${of.id}: ${of.help}: ${of.nodes.slice(0, 3).map((node) => node.html).join(" | ")}`);
  assert.deepEqual(told, [], what);
  checks += 1;
}

const shot = (page, name, fullPage = false) => page.screenshot({ path: path.join(shots, `${name}.png`), fullPage });
const overflows = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

const pages = {
  overview: "index.html",
  passing: "cases/topic.leak@x86_64.html",
  failing: "cases/topic.open-file-wrong@x86_64.html",
  trace: "cases/topic.trace-order@x86_64.html",
  crashed: "cases/crash.warn@x86_64.html",
  panic: "cases/crash.panic@arm.html",
  skipped: "cases/topic.skipped@arm.html",
  hostile: "cases/hostile.markup@x86_64.html",
};

for (const [name, file] of Object.entries(pages)) {
  for (const dark of [false, true]) {
    for (const [screen, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
      const what = `${name}-${screen}-${dark ? "dark" : "light"}`;
      const page = await open(path.join(small, file), { viewport, dark });
      assert.equal(await overflows(page), false, `${what} is wider than its screen`);
      await shot(page, what, true);
      await accessible(page, what);
      await page.close();
    }
  }
}

// What a guest says stays text.
{
  const page = await open(path.join(small, pages.hostile));
  assert.match(await page.title(), /^fail: hostile\/markup@x86_64$/);
  assert.equal(await page.$$eval("script", (all) => all.length), 1);
  assert.equal(await page.$$eval("img, main b, main i, [onmouseover]", (all) => all.length), 0);
  const text = await page.$eval("body", (body) => body.textContent);
  for (const said of ["<script>document.title=", "{{ 7 * 7 }}", "<b>bold</b>", "<i>y</i>", "<script>alert(1)</script>"]) {
    assert.ok(text.includes(said), `the page does not show ${said}`);
  }
  await page.close();
}

// Search, filters and the keyboard.
{
  const page = await open(path.join(small, pages.overview));
  const visible = () => page.$$eval("#matrix tbody tr", (rows) => rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent));
  const all = await visible();
  await page.keyboard.press("/");
  await page.keyboard.type("open FILE");
  assert.deepEqual(await visible(), ["topic/open-file", "topic/open-file-wrong"]);
  await page.keyboard.press("Tab");
  // The first filter is for what passed.
  await page.keyboard.press("Space");
  assert.deepEqual(await visible(), ["topic/open-file"]);
  assert.equal(await page.$eval("#shown", (of) => of.textContent), `1 of ${all.length} scenarios shown`);
  await page.close();
  const first = await open(path.join(small, pages.overview));
  await first.keyboard.press("Tab");
  assert.equal(await first.evaluate(() => document.activeElement.className), "skip-link");
  await first.close();
}

// Copying.
{
  const page = await open(path.join(small, pages.failing));
  await page.click("button[data-copy]");
  await page.waitForFunction(() => document.querySelector("button[data-copy]").textContent !== "copy");
  const told = await page.$eval("button[data-copy]", (button) => button.textContent);
  assert.ok(["copied", "press Ctrl-C"].includes(told), told);
  await page.close();
}

// Without JavaScript all is there to read, and nothing that would not work.
{
  const page = await open(path.join(small, pages.overview), { script: false });
  assert.equal(await page.$eval("#filters", (form) => form.hidden), true);
  const links = await page.$$eval("#matrix a", (all) => all.length);
  assert.equal(links, readdirSync(path.join(small, "cases")).length);
  await page.close();
}

// Ten thousand cases.
{
  const begun = performance.now();
  const page = await open(path.join(big, "index.html"));
  const opened = performance.now() - begun;
  assert.equal(await page.$$eval("#matrix a", (all) => all.length), 10_000);
  assert.equal(readdirSync(path.join(big, "cases")).length, 10_000);
  const typed = performance.now();
  await page.keyboard.press("/");
  await page.keyboard.type("leak 77");
  await page.waitForFunction(() => document.querySelector("#shown").textContent.match(/^\d+ of/));
  const searched = performance.now() - typed;
  await shot(page, "ten-thousand-searched");
  await page.close();
  const whole = await open(path.join(big, "index.html"));
  await shot(whole, "ten-thousand");
  await accessible(whole, "ten thousand cases");
  await whole.close();
  console.log(`ten thousand cases: opened in ${Math.round(opened)} ms, searched in ${Math.round(searched)} ms`);
}

await browser.close();
console.log(`${checks} pages without a finding of axe; screenshots are in ${shots}`);
