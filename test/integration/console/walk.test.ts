// Every page of the console in Chromium, on the reference application while flights and payments come in: errors, WCAG 2.1 AA in light and dark, phones,
// zoom, the keyboard alone, titles, and the way back.
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser, Locator, Page } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import {
  axe,
  chromium,
  eventually,
  look,
  openConsole,
  routes,
  settled,
  show,
  walk
} from "../../support/browser/console.ts"
import * as Cli from "../../support/cli.ts"
import { needing } from "../../support/stack.ts"
import { removed } from "../../support/removed.ts"

const suite = await needing("chromium", "axe")
const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-walk-"))
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
let url = ""
let browser: Browser

const post = async (path: string, body: object, headers: Readonly<Record<string, string>> = {}) => {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body)
  })
  expect(response.status, await response.clone().text()).toBeLessThan(300)
}
const payment = (id: string, entity: string, amount: number) => ({
  type: "payment",
  event_id: id,
  entity_id: entity,
  amount,
  occurred_at: 1_357_035_420_000,
  tenant: "acme"
})
/** Addresses that no page links to before its user has chosen something. */
const chosen = [
  "#/tables/alerts?order=score.desc&score.gt=1",
  "#/explain?table=alerts&alert_id=p-1",
  "#/aggregates/alert-case/p-1",
  "#/aggregates/alert-case/of-nobody",
  "#/live?topic=events.raw.v1&from=earliest",
  "#/topics/no-such-topic",
  "#/tables/no_such_table"
]
/** Widths of a phone, and of a window of 1280 pixels at a zoom of 200 % and 400 %. */
const widths = [360, 640, 320]

const visited: Array<string> = []

suite("every page of the console", () => {
  beforeAll(async () => {
    const flights = [
      "--features",
      "projections/flights/planes.ndjson.gz",
      "--input",
      "projections/flights/2013-01.ndjson.gz"
    ]
    const dev = await run(
      Cli.start({}, "dev", "--data", join(directory, "data"), "--port", "0", ...flights, "--speed", "40")
    )
    url = /http:\S+?:\d+/.exec(await run(dev.said(/http:\S+?:\d+/)))![0]
    await eventually(async () => (await fetch(`${url}/readyz`)).ok)
    for (const id of ["p-1", "p-2", "p-3"]) await post("/v1/events", payment(id, "entity-1", 5_000))
    await post(
      "/v1/aggregates/alert-case/c-1/commands/open",
      { at: 1_357_035_420_000, entity_id: "entity-1", score: 5 },
      { "idempotency-key": "k-1" }
    )
    await eventually(async () =>
      (await (await fetch(`${url}/v1/views/alerts?alert_id=p-3`)).text()).includes('"alert_id":"p-3"')
    )
    browser = await run(chromium)
  }, 120_000)
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await removed(directory)
  })

  test(
    "has no error, keeps WCAG AA in light and in dark, and has nothing cut off on a phone and at a zoom of 200 %",
    { timeout: 180_000 },
    async () => {
      const { close, errors, page } = await openConsole(browser, url, {
        viewport: { width: 1280, height: 800 },
        reducedMotion: "reduce"
      })
      const problems: Array<string> = []
      const titles = new Map<string, string>()
      await walk(
        page,
        async (link) => {
          visited.push(link)
          const note = (what: string, found: ReadonlyArray<string>) =>
            problems.push(...found.map((one) => `${link}, ${what}: ${one}`))
          note("errors", errors.splice(0))
          note("wide", [
            ...(await look(page, "cutOff")),
            ...(await look(page, "missing")),
            ...(await look(page, "moving"))
          ])
          note("light", await axe(page))
          note("light", await hovered(page, "light"))
          await page.emulateMedia({ colorScheme: "dark", reducedMotion: "reduce" })
          note("dark", await axe(page, "color-contrast"))
          note("dark", await hovered(page, "dark"))
          await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" })
          for (const width of widths) {
            await page.setViewportSize({ width, height: 740 })
            // charts are drawn again
            await page.waitForTimeout(100)
            note(`${width} wide`, await look(page, "cutOff"))
            // where something can be done about a row, it is on the screen
            if (/^#\/(timers|versions)/.test(link)) note(`${width} wide`, await look(page, "sideways"))
          }
          await page.setViewportSize({ width: 1280, height: 800 })
          const title = await page.title()
          note(
            "title",
            titles.has(title) && titles.get(title)!.split("?")[0] !== link.split("?")[0]
              ? [`${title} is that of ${titles.get(title)}, too`]
              : []
          )
          titles.set(title, link)
          note("violations", await page.evaluate<ReadonlyArray<string>>("violations.splice(0)"))
        },
        chosen
      )
      expect(routes.length).toBeGreaterThan(11)
      expect(problems.join("\n")).toBe("")
      await close()
    }
  )

  // what follows has nothing to wait for but its own pages
  test.concurrent(
    "is used by the keyboard alone: each control is reached and shows it, dialogs close by Escape, and the focus goes back",
    { timeout: 180_000 },
    async () => {
      const problems: Array<string> = []
      const use = async (links: ReadonlyArray<string>) => {
        const { close, page } = await openConsole(browser, url, { viewport: { width: 1280, height: 800 } })
        for (const link of links) {
          await show(page, link)
          if (opensRecord(link)) await page.locator("dialog[open]").waitFor()
          problems.push(...(await tabbed(page, link === visited[0] ? "body" : "main")).map((one) => `${link}: ${one}`))
          problems.push(...(await dialogs(page)).map((one) => `${link}: ${one}`))
        }
        await close()
      }
      expect(visited.length).toBeGreaterThan(routes.length)
      const half = Math.ceil(visited.length / 2)
      await Promise.all([use(visited.slice(0, half)), use(visited.slice(half))])
      expect(problems.join("\n")).toBe("")
    }
  )

  test.concurrent(
    "is found again by its address and by going back, says its name when a link opens it, and takes the focus by the skip link",
    { timeout: 180_000 },
    async () => {
      const { close, page } = await openConsole(browser, url)
      const heads: Array<readonly [string, string]> = []
      const stateOf = async (page: Page) =>
        [await page.title(), await page.getByRole("heading", { level: 1 }).innerText()] as const
      const state = () => stateOf(page)
      /** What each address shows in a page that opens with it. */
      const opened = async () => {
        const other = await openConsole(browser, url)
        const found = []
        for (const link of visited) {
          await other.page.goto("about:blank")
          await other.page.goto(`${url}/${link}`)
          await settled(other.page)
          found.push(await stateOf(other.page))
        }
        await other.close()
        return found
      }
      const byAddress = opened()
      for (const link of visited) {
        await show(page, link)
        heads.push(await state())
        // the first page is there already
        if (heads.length > 1)
          expect(await page.locator("main > [role=status].sr").textContent(), link).toBe(await page.title())
      }
      for (const [i, link] of [...visited.entries()].toReversed().slice(1)) {
        await page.goBack()
        await settled(page)
        expect(await state(), link).toEqual(heads[i])
      }
      await page.goForward()
      await settled(page)
      expect(await state()).toEqual(heads[1])
      expect(await byAddress).toEqual(heads)
      await page.locator("a.skip").focus()
      await page.keyboard.press("Enter")
      expect(await page.evaluate("document.activeElement.id")).toBe("main")
      await close()
    }
  )

  test.concurrent("is reached on a phone by a menu, which opens and closes by the keyboard", async () => {
    const { close, page } = await openConsole(browser, url, { viewport: { width: 360, height: 740 } })
    const menu = page.getByRole("button", { name: "Pages" })
    await menu.focus()
    await page.keyboard.press("Enter")
    await page.getByRole("link", { name: "Tables", exact: true }).waitFor()
    expect(await look(page, "cutOff")).toEqual([])
    expect(await axe(page)).toEqual([])
    await page.keyboard.press("Tab")
    await page.keyboard.press("Escape")
    expect(await menu.getAttribute("aria-expanded")).toBe("false")
    expect(await page.evaluate("document.activeElement.textContent.trim()")).toBe("Pages")
    await menu.click()
    await page.getByRole("link", { name: "Tables", exact: true }).click()
    await page.getByRole("heading", { level: 1, name: "Tables" }).waitFor()
    expect(await menu.getAttribute("aria-expanded")).toBe("false")
    await close()
  })
})

/** What is wrong with the contrast of a control below the pointer, which may move while its page loads. */
const below = async (page: Page, control: Locator): Promise<ReadonlyArray<string>> => {
  let found: ReadonlyArray<string> = []
  for (let round = 0; round < 5; round++) {
    await control.hover()
    found = await look(page, "contrast")
    if (!found.includes("nothing is below the pointer")) return found
  }
  return found
}
const kindsHovered = new Set<string>()
/** What is wrong with the contrast of buttons below the pointer and pressed: one of each kind in each scheme. */
const hovered = async (page: Page, scheme: string): Promise<ReadonlyArray<string>> => {
  const problems: Array<string> = []
  const buttons = page.locator("button:enabled:visible, a.figure:visible")
  const kinds = await buttons.evaluateAll((all) =>
    all.map((one) => `${one.tagName} ${one.className} ${one.getAttribute("aria-pressed")}`)
  )
  for (const [i, kind] of kinds.entries()) {
    if (kindsHovered.has(`${scheme} ${kind}`)) continue
    kindsHovered.add(`${scheme} ${kind}`)
    problems.push(...(await below(page, buttons.nth(i))))
  }
  await page.mouse.move(0, 0)
  return problems
}
/** Whether an address names one record, whose dialog opens when the topics of the application are known. */
const opensRecord = (link: string): boolean => /^#\/events\?(?:.*&)?at=\d/.test(link)
/** How often Tab is pressed on a page at most: what follows then is the rest of a long table. */
const mostTabs = 120
/** Goes through a part of the page by Tab. */
const tabbed = async (page: Page, part: "main" | "body"): Promise<ReadonlyArray<string>> => {
  // the address of a record opens its dialog
  if (await page.locator("dialog[open]").isVisible()) await page.keyboard.press("Escape")
  // what changes all the time is read after a pause
  const pause = page.getByRole("button", { name: "Pause", exact: true })
  if (await pause.isVisible()) await pause.click()
  await page.evaluate(`looks.startKeyboard("${part}")`)
  for (let i = 0; i < mostTabs; i += 15) {
    for (let press = 0; press < 15; press++) await page.keyboard.press("Tab")
    const { isEnd, missed, problems } = await look<{
      readonly isEnd: boolean
      readonly missed: ReadonlyArray<string>
      readonly problems: ReadonlyArray<string>
    }>(page, "keyboard")
    if (isEnd) return [...problems, ...missed]
    if (i + 15 >= mostTabs) return problems
  }
  return []
}
/** Opens dialogs of the page, and closes them by Escape. */
const dialogs = async (page: Page): Promise<ReadonlyArray<string>> => {
  const problems: Array<string> = []
  const openers = page.locator("main [aria-haspopup=dialog]:enabled")
  for (let i = 0; i < Math.min(3, await openers.count()); i++) {
    // the element itself: its row may move, or go, while the dialog is open
    const opener = (await openers.nth(i).elementHandle())!
    const name = await opener.innerText()
    await opener.focus()
    await page.keyboard.press("Enter")
    await page.locator("dialog[open]").waitFor()
    problems.push(...(await axe(page)).map((one) => `the dialog ${name}: ${one}`))
    for (const button of await page.locator("dialog[open] footer button:enabled").all()) {
      problems.push(...(await below(page, button)).map((one) => `the dialog ${name}: ${one}`))
    }
    await page.keyboard.press("Escape")
    await page.locator("dialog[open]").waitFor({ state: "detached" })
    if (!(await opener.evaluate((one) => one === one.ownerDocument.activeElement || !one.isConnected)))
      problems.push(`the focus is not back on ${name}`)
  }
  return problems
}
