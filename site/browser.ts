// Looks at every page of the served site in Chromium, as wide as a phone: none scrolls sideways, pictures are drawn, search finds pages, and
// nothing is asked of another machine.
import { existsSync } from "node:fs"
import { delimiter, join } from "node:path"
import { chromium, type Page } from "playwright-core"

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
/** How wide pages are as they are served, before any script has run. */
const widthsOf = async (page: Page, address: string, paths: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  const problems: Array<string> = []
  for (const path of paths) {
    await page.goto(address + path, { waitUntil: "load" })
    const [wide = 0, screen = 0] = await page.evaluate<ReadonlyArray<number>>(
      "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    if (wide > screen) problems.push(`${path}: it is ${wide} px wide on a screen of ${screen} px`)
  }
  return problems
}
/** Pages whose pictures are not drawn, or are wider than the screen, or whose scripts fail. */
const picturesOf = async (
  page: Page,
  address: string,
  paths: ReadonlyArray<string>
): Promise<ReadonlyArray<string>> => {
  const problems: Array<string> = []
  let current = ""
  page.on("pageerror", (error) => problems.push(`${current}: ${error.message}`))
  for (const path of paths) {
    current = path
    await page.goto(address + path, { waitUntil: "load" })
    const expected = await page.locator(".diagram").count()
    await page
      .waitForFunction(`document.querySelectorAll(".diagram svg").length >= ${expected}`, undefined, {
        timeout: 60_000
      })
      .catch(() => problems.push(`${path}: a picture is not drawn`))
    const isWide = await page.evaluate<boolean>(
      "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    if (isWide) problems.push(`${path}: with its pictures it is wider than the screen`)
  }
  return problems
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
/** Looks at the pages of a site, and returns what is wrong: a line for each problem. `drawn` are the pages with pictures. */
export const lookAt = async (
  address: string,
  paths: ReadonlyArray<string>,
  drawn: ReadonlyArray<string>
): Promise<ReadonlyArray<string>> => {
  const browser = await chromium.launch({ executablePath: program(), args: ["--no-sandbox"] })
  const phone = { viewport: { width: 360, height: 740 }, isMobile: true }
  const foreign = new Set<string>()
  const open = async (javaScriptEnabled: boolean): Promise<Page> => {
    const context = await browser.newContext({ ...phone, javaScriptEnabled })
    await context.route(
      (url) => url.origin !== new URL(address).origin,
      (route) => {
        foreign.add(`${route.request().url()} is asked of another machine`)
        return route.abort()
      }
    )
    return await context.newPage()
  }
  try {
    const page = await open(true)
    for (let tries = 0; tries < 50; tries++) {
      const isServed = await page.goto(address).then(
        () => true,
        () => false
      )
      if (isServed) break
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    const problems = [
      ...(await widthsOf(await open(false), address, paths)),
      ...(await picturesOf(page, address, drawn)),
      ...(await search(page, address))
    ]
    return [...problems, ...foreign]
  } finally {
    await browser.close()
  }
}
