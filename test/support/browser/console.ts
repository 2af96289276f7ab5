// Opens the console in Chromium as its users do, and walks all of its pages: those of its router, and every link to another kind of page that they have.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import { axePath, launchChromium } from "../../../site/chromium.ts"

const root = join(import.meta.dirname, "../../..")
const looks = join(import.meta.dirname, "looks.js")

/** The pages of the router, by the first part of their addresses. */
export const routes: ReadonlyArray<string> = [
  ...readFileSync(join(root, "src/console/app.js"), "utf8").matchAll(/^ {2}"?([\w-]+)"?: page\(/gm)
].map(([, name = ""]) => name)

/** Waits until a condition holds, which may fail meanwhile. The timeout of the test or hook limits it. */
export const eventually = async (condition: () => Promise<boolean>): Promise<void> => {
  while (!(await condition().catch(() => false))) await new Promise((resolve) => setTimeout(resolve, 50))
}

/** A Chromium, until the scope closes. */
export const chromium = Effect.acquireRelease(Effect.promise(launchChromium), (browser) =>
  Effect.promise(() => browser.close())
)

/** A page that is open in a browser. */
export interface Opened {
  readonly page: Page
  /** What the page reported as an error since this was last emptied: of scripts, of the Content-Security-Policy, and dialogs of scripts. */
  readonly errors: Array<string>
  readonly close: () => Promise<void>
}

/** Opens an empty page in a context of its own. What matches `expected` is not collected as an error. */
export const openPage = async (
  browser: Browser,
  options: BrowserContextOptions = {},
  expected?: RegExp
): Promise<Opened> => {
  // a machine without a language gives the browser one that it does not know
  const context = await browser.newContext({ locale: "en-US", ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  const errors: Array<string> = []
  page.on("pageerror", (error) => errors.push(error.message))
  page.on("console", (message) => {
    if (message.type() === "error" && expected?.test(message.text()) !== true) errors.push(message.text())
  })
  page.on("dialog", (dialog) => (errors.push(`dialog ${dialog.message()}`), dialog.dismiss()))
  return { page, errors, close: () => context.close() }
}

/** Opens the console; `key` is its user's, where the server asks for one. */
export const openConsole = async (
  browser: Browser,
  url: string,
  { key, ...options }: BrowserContextOptions & { readonly key?: string } = {}
): Promise<Opened> => {
  // a refusal is an answer, which the page shows
  const refusals = /status of (401|403|404|409|503)/
  const opened = await openPage(browser, { timezoneId: "Europe/Berlin", ...options }, refusals)
  const { page } = opened
  await page.addInitScript({ path: looks })
  if (key !== undefined)
    await page.addInitScript(`sessionStorage.setItem("millrace.credential", ${JSON.stringify(key)})`)
  await page.goto(url)
  await page.getByRole("heading", { level: 1 }).waitFor()
  return opened
}
/** Opens the console as `openConsole` does; its user types the key. Every refusal after that is an error. */
export const signIn = async (
  browser: Browser,
  url: string,
  key: string | undefined,
  options?: BrowserContextOptions
): Promise<Opened> => {
  const opened = await openPage(browser, options)
  const { errors, page } = opened
  await page.goto(url)
  if (key !== undefined) {
    await page.getByLabel("API key or token").fill(key)
    await page.getByRole("button", { name: "Use it" }).click()
  }
  await page.getByRole("heading", { level: 1 }).waitFor()
  // before the credential was given, the server refused
  errors.length = 0
  return opened
}
/** Navigates to an address of the console, `entity/N1?at=…`, and waits until it shows what it has loaded. */
export const goTo = async (page: Page, url: string, path: string): Promise<void> => {
  await page.goto(`${url}/#/${path}`)
  await page.getByRole("heading", { level: 1 }).waitFor()
  await page.locator("main", { hasText: "Loading…" }).waitFor({ state: "hidden" })
}

/** Goes to an address of the console, and waits until it shows what it has loaded. */
export const show = async (page: Page, link: string): Promise<void> => {
  await page.evaluate(`location.hash = ${JSON.stringify(link)}`)
  await settled(page)
}
/** Waits until the page has a heading, nothing loads, and two looks at it find the same number of elements. */
export const settled = async (page: Page): Promise<void> => {
  await page.getByRole("heading", { level: 1 }).first().waitFor()
  await page.locator("main", { hasText: "Loading…" }).waitFor({ state: "hidden" })
  const count = () => page.locator("main *").count()
  let before = -1
  for (let now = await count(), round = 0; now !== before && round < 10; now = await count(), round++) {
    before = now
    await page.waitForTimeout(60)
  }
}

/** What kind of page an address is: its first part, how many more there are, and the names of its parameters. */
const kindOf = (link: string): string => {
  const [path = "", query = ""] = link.replace(/^#\/?/, "").split("?")
  const [name, ...rest] = path.split("/")
  return `${name}/${rest.length} ${[...new URLSearchParams(query).keys()].toSorted().join(" ")}`
}

/**
 * Visits the pages of the router and, from each, one link to each kind of page that it did not visit yet. `visit` is called on each, with its address.
 * Returns the addresses. `first`: addresses that are visited beside those of the router.
 */
export const walk = async (
  page: Page,
  visit: (link: string) => Promise<void>,
  first: ReadonlyArray<string> = []
): Promise<ReadonlyArray<string>> => {
  const queue = [...routes.map((name) => `#/${name}`), ...first]
  const kinds = new Set(queue.map(kindOf))
  for (let link = queue.shift(), count = 0; link !== undefined && count < 80; link = queue.shift(), count++) {
    await show(page, link)
    for (const found of await page
      .locator("main a[href^='#/']")
      .evaluateAll((all) => all.map((one) => one.getAttribute("href")!))) {
      if (kinds.has(kindOf(found))) continue
      kinds.add(kindOf(found))
      queue.push(found)
    }
    await visit(link)
  }
  return [...kinds]
}

/** What a function of `looks.js` returns on the page. */
export const look = <A = ReadonlyArray<string>>(page: Page, name: string): Promise<A> =>
  page.evaluate<A>(`looks.${name}()`)

interface Violation {
  readonly id: string
  readonly help: string
  readonly nodes: ReadonlyArray<{ readonly target: ReadonlyArray<string>; readonly failureSummary: string }>
}
const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
// the rule that is left out is experimental: it wants the text of a graph in its names letter by letter
/** What axe-core finds on the page: WCAG 2.2 AA, contrast among it, and its best practices; or what one rule of it finds. */
export const axe = async (page: Page, rule?: string): Promise<ReadonlyArray<string>> => {
  if (!(await page.evaluate<boolean>("'axe' in globalThis"))) await page.evaluate(readFileSync(axePath, "utf8"))
  // axe-core measures no contrast over a gradient, as that which shows that a table scrolls
  await page.evaluate(
    "{ const sheet = new CSSStyleSheet(); sheet.replaceSync('.scroll { background: none !important }'); document.adoptedStyleSheets = [sheet] }"
  )
  const found = await page.evaluate<ReadonlyArray<Violation>>(
    `axe.run({ runOnly: ${JSON.stringify(rule === undefined ? tags : [rule])}, resultTypes: ["violations"], rules: { "label-content-name-mismatch": { enabled: false } } }).then((found) => found.violations)`
  )
  return found.map(({ help, id, nodes: [first, ...more] }) => {
    const where = `${first?.target.join(" ")}${more.length === 0 ? "" : ` and ${more.length} more`}`
    return `${id}: ${help}: ${where}: ${first?.failureSummary.replaceAll(/\s+/g, " ")}`
  })
}
