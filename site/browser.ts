// Looks at every page of the served site in Chromium, as wide as a phone: none scrolls sideways, pictures are drawn, search finds pages, and
// nothing is asked of another machine.
import { existsSync } from "node:fs"
import { delimiter, join } from "node:path"
import { chromium, type BrowserContext, type Page } from "playwright-core"

const program = (): string => {
  const given = process.env["CHROMIUM"]
  if (given !== undefined) return given
  const folders = (process.env["PATH"] ?? "").split(delimiter)
  const found = ["chromium", "chromium-browser", "google-chrome"]
    .flatMap((name) => folders.map((folder) => join(folder, name)))
    .find((path) => existsSync(path))
  return found ?? chromium.executablePath()
}
const queries = [
  { text: "dead letters", page: /failures|dead-letters/ },
  { text: "tumbling", page: /window|Window/ }
]
/** What is wrong with one page at the width that its browser has. */
const problemsOf = async (page: Page, address: string, path: string): Promise<ReadonlyArray<string>> => {
  const errors: Array<string> = []
  const listener = (error: Error) => errors.push(`${path}: ${error.message}`)
  page.on("pageerror", listener)
  await page.goto(address + path, { waitUntil: "load" })
  const diagrams = page.locator(".diagram")
  const expected = await diagrams.count()
  if (expected > 0)
    await page
      .waitForFunction(`document.querySelectorAll(".diagram svg").length >= ${expected}`, undefined, {
        timeout: 30_000
      })
      .catch(() => errors.push(`${path}: a picture is not drawn`))
  const [wide = 0, screen = 0] = await page.evaluate<ReadonlyArray<number>>(
    "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
  )
  if (wide > screen) errors.push(`${path}: it is ${wide} px wide on a screen of ${screen} px`)
  page.off("pageerror", listener)
  return errors
}
const search = async (page: Page, address: string): Promise<ReadonlyArray<string>> => {
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
/** Looks at the pages of a site, and returns what is wrong: a line for each problem. */
export const lookAt = async (address: string, pages: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  const browser = await chromium.launch({ executablePath: program(), args: ["--no-sandbox"] })
  try {
    const context: BrowserContext = await browser.newContext({ viewport: { width: 360, height: 740 }, isMobile: true })
    const foreign = new Set<string>()
    await context.route(
      (url) => url.origin !== new URL(address).origin,
      (route) => {
        foreign.add(`${route.request().url()} is asked of another machine`)
        return route.abort()
      }
    )
    const page = await context.newPage()
    for (let tries = 0; tries < 50; tries++) {
      if (
        await page.goto(address).then(
          () => true,
          () => false
        )
      )
        break
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    const problems: Array<string> = []
    for (const path of pages) problems.push(...(await problemsOf(page, address, path)))
    problems.push(...(await search(page, address)))
    return [...problems, ...foreign]
  } finally {
    await browser.close()
  }
}
