// Looks at the built site in Chromium: no page is wider than a phone, pictures are drawn, search finds pages, nothing is asked of another
// machine, and pages of every kind keep the rules of WCAG 2.1 AA (contrast among them) that axe-core computes, in light and dark.
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { extname, join } from "node:path"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import { axePath, launchChromium } from "./chromium.ts"

type Problems = ReadonlyArray<string>
/** A page of each kind: what is on it in the themes' colours is on all others, too. */
const samples = [
  "index.html",
  "readme.html",
  "start/first-application.html",
  "guide/windows.html",
  "guide/production.html",
  "operations/versions.html",
  "reference/commands.html",
  "compare/marten.html",
  "api/millrace/Window.html",
  "source/millrace.config.ts.html"
]
const queries = [
  { text: "dead letters", page: /failures|dead-letters/ },
  { text: "tumbling", page: /window|Window/ }
]
const phone = { viewport: { width: 360, height: 740 }, isMobile: true }
const desk = { viewport: { width: 1440, height: 900 } }
const isWide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
const types: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".json": "application/json",
  ".woff2": "font/woff2"
}
/** Serves a folder under `base` on a free port of this machine. */
const serve = async (folder: string, base: string) => {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname)
    const file = join(
      folder,
      path.startsWith(base) ? path.slice(base.length) : "none",
      path.endsWith("/") ? "index.html" : ""
    )
    if (!existsSync(file) || !statSync(file).isFile()) return void response.writeHead(404).end()
    response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" })
    response.end(readFileSync(file))
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}${base}`
  return { address, stop: () => void server.close().closeAllConnections() }
}
/** Pages that are wider than the screen as they are served, before any script has run. */
const widths = async (page: Page, address: string, paths: Problems): Promise<Problems> => {
  const problems: Array<string> = []
  for (const path of paths) {
    await page.goto(address + path, { waitUntil: "load" })
    if (await page.evaluate<boolean>(isWide)) problems.push(`${path}: it is wider than a screen of 360 px`)
  }
  return problems
}
/** Waits until the pictures of a page are drawn. */
const drawn = async (page: Page): Promise<boolean> => {
  const expected = await page.locator(".diagram").count()
  return await page
    .waitForFunction(`document.querySelectorAll(".diagram svg").length >= ${expected}`, undefined, { timeout: 60_000 })
    .then(
      () => true,
      () => false
    )
}
/** Pages whose pictures are not drawn, or are wider than the screen, or whose scripts fail. */
const pictures = async (page: Page, address: string, paths: Problems): Promise<Problems> => {
  const problems: Array<string> = []
  let current = ""
  page.on("pageerror", (error) => problems.push(`${current}: ${error.message}`))
  for (const path of paths) {
    current = path
    await page.goto(address + path, { waitUntil: "load" })
    if (!(await drawn(page))) problems.push(`${path}: a picture is not drawn`)
    if (await page.evaluate<boolean>(isWide)) problems.push(`${path}: with its pictures it is wider than the screen`)
  }
  return problems
}
const searched = async (page: Page, address: string): Promise<Problems> => {
  const problems: Array<string> = []
  for (const { page: expected, text } of queries) {
    await page.goto(address, { waitUntil: "load" })
    await page.locator("#local-search button").click()
    await page.locator("#localsearch-input").fill(text)
    const results = page.locator("#localsearch-list a.result")
    await results
      .first()
      .waitFor({ timeout: 30_000 })
      .catch(() => undefined)
    const links = await results.evaluateAll((all) => all.slice(0, 5).map((one) => one.getAttribute("href") ?? ""))
    if (!links.some((link) => expected.test(link)))
      problems.push(`the search for "${text}" finds ${links.length === 0 ? "nothing" : links.join(", ")}`)
  }
  return problems
}
interface Violation {
  readonly id: string
  readonly help: string
  readonly nodes: ReadonlyArray<{ readonly target: ReadonlyArray<string>; readonly failureSummary: string }>
}
const runOnly = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
/** What axe-core finds on pages in one theme and size; `shots` is a folder for a screenshot of each. */
const rules = async (
  page: Page,
  address: string,
  paths: Problems,
  look: string,
  shots: string | undefined
): Promise<Problems> => {
  const axe = readFileSync(axePath, "utf8")
  const problems: Array<string> = []
  for (const path of paths) {
    await page.goto(address + path, { waitUntil: "load" })
    await drawn(page)
    if (shots !== undefined)
      await page.screenshot({ path: join(shots, `${path.replaceAll("/", "-")}.${look.replaceAll(" ", "-")}.png`) })
    await page.evaluate(axe)
    // the rule that is left out is experimental: it takes the shortcut beside "Search" for a part of its name
    const violations = await page.evaluate<ReadonlyArray<Violation>>(
      `axe.run(${JSON.stringify({ runOnly, rules: { "label-content-name-mismatch": { enabled: false } } })}).then((found) => found.violations)`
    )
    for (const { help, id, nodes } of violations)
      for (const { failureSummary, target } of nodes)
        problems.push(
          `${path}, ${look}: ${id}: ${help}: ${target.join(" ")}: ${failureSummary.replaceAll(/\s+/g, " ")}`
        )
  }
  return problems
}
/** The problems of several looks at the site, which are taken at the same time, each on a page of its own. */
const together = async (
  browser: Browser,
  address: string,
  looks: ReadonlyArray<readonly [BrowserContextOptions, (page: Page) => Promise<Problems>]>
): Promise<Problems> => {
  const foreign = new Set<string>()
  const found = await Promise.all(
    looks.map(async ([options, look]) => {
      const context = await browser.newContext(options)
      await context.route(
        (url) => url.origin !== new URL(address).origin,
        (route) => {
          foreign.add(`${route.request().url()} is asked of another machine`)
          return route.abort()
        }
      )
      const problems = await look(await context.newPage())
      await context.close()
      return problems
    })
  )
  return [...found.flat(), ...foreign]
}
/**
 * Looks at the pages in a folder that is built to be served at `base`, and returns what is wrong: a line for each problem. `pictured` are
 * the pages with pictures; `shots` is a folder for screenshots of the samples.
 */
export const lookAt = async (
  folder: string,
  base: string,
  paths: ReadonlyArray<string>,
  pictured: ReadonlyArray<string>,
  shots?: string
): Promise<Problems> => {
  const missing = samples.filter((path) => !paths.includes(path)).map((path) => `the site has no page ${path}`)
  if (missing.length > 0) return missing
  if (shots !== undefined) mkdirSync(shots, { recursive: true })
  const { address, stop } = await serve(folder, base)
  const browser = await launchChromium()
  try {
    // pages of the API and of sources are generated alike: some of each are enough
    const checked = paths.filter((path, at) => !/^(api|source)\//.test(path) || at % 10 === 0)
    const half = Math.ceil(checked.length / 2)
    const plain = { ...phone, javaScriptEnabled: false }
    return await together(browser, address, [
      [plain, (page) => widths(page, address, checked.slice(0, half))],
      [plain, (page) => widths(page, address, checked.slice(half))],
      [phone, (page) => pictures(page, address, pictured)],
      [desk, (page) => searched(page, address)],
      [{ ...desk, colorScheme: "light" }, (page) => rules(page, address, samples, "light", shots)],
      [{ ...desk, colorScheme: "dark" }, (page) => rules(page, address, samples, "dark", shots)],
      [{ ...phone, colorScheme: "light" }, (page) => rules(page, address, samples.slice(0, 5), "light phone", shots)],
      [{ ...phone, colorScheme: "dark" }, (page) => rules(page, address, samples.slice(0, 5), "dark phone", shots)]
    ])
  } finally {
    await browser.close()
    stop()
  }
}
