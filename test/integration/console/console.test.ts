// The console in Chromium, on the running reference application whose server asks for credentials: each page, actions, and text that looks like markup.
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import { chromium, goTo, signIn } from "../../support/browser/console.ts"
import * as Cli from "../../support/cli.ts"
import { needing } from "../../support/stack.ts"
import { removed } from "../../support/removed.ts"

const pages = [
  "overview",
  "pipeline",
  "live",
  "windows",
  "events",
  "tables",
  "tables/alerts",
  "explain",
  "send",
  "aggregates",
  "aggregates/alert-case/f-1",
  "topics",
  "topics/alerts.v1",
  "versions",
  "dead-letters"
]
const markup = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>\u001b[31m"'&`
const suite = await needing("chromium")
const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-console-"))
const environment = { MILLRACE_HTTP_AUTH: "required" }
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
let url = ""
let browser: Browser
let operator = ""
const keyOf = async (...args: ReadonlyArray<string>) => {
  const created = await run(
    Cli.run(environment, "keys", "create", ...args, "--data", join(directory, "data"), "--json")
  )
  expect(created.code, created.errors).toBe(0)
  return (JSON.parse(created.output) as { readonly key: string }).key
}
const post = async (path: string, body: object) => {
  const headers = { "content-type": "application/json", authorization: `Bearer ${operator}` }
  const response = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) })
  expect(response.status, await response.clone().text()).toBeLessThan(300)
  return (await response.json()) as { readonly token: string }
}
const transfer = (id: string, entity: string, amount: number, tenant = "acme") => ({
  type: "transfer",
  event_id: id,
  entity_id: entity,
  amount,
  occurred_at: 1_357_035_420_000,
  tenant
})

const open = (key: string, options?: BrowserContextOptions) => signIn(browser, url, key, options)
const show = (page: Page, path: string) => goTo(page, url, path)

suite("the console", () => {
  beforeAll(async () => {
    const data = join(directory, "data")
    const migrated = await run(Cli.run(environment, "migrate", "--data", data))
    expect(migrated.code, migrated.errors).toBe(0)
    operator = await keyOf("operator", "--scopes", "ingest,read,operate")
    const dev = await run(Cli.start(environment, "dev", "--data", data, "--port", "0"))
    url = /http:\S+?:\d+/.exec(await run(dev.said(/POST http:\S+?:\d+/)))![0]
    await post("/v1/events", transfer("f-1", "entity-1", 2_000))
    await post("/v1/events", transfer("m-1", markup, 3_000))
    browser = await run(chromium)
  }, 120_000)
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await removed(directory)
  })

  test("each page opens without an error, and none scrolls sideways, wide and on a phone, in light and in dark", async () => {
    for (const [width, colorScheme] of [
      [1_280, "light"],
      [360, "dark"]
    ] as const) {
      const { close, errors, page } = await open(operator, { viewport: { width, height: 800 }, colorScheme })
      for (const path of pages) {
        await show(page, path)
        const what = `${path}, ${width} wide, ${colorScheme}`
        expect(errors, what).toEqual([])
        expect(await page.locator(".problem").allTextContents(), what).toEqual([])
        expect(await page.evaluate("document.documentElement.scrollWidth"), what).toBe(width)
      }
      await close()
    }
  })

  test("forms follow the address, forwards and back, and an address without a page says which pages there are", async () => {
    const { close, errors, page } = await open(operator)
    const field = page.getByLabel("alert_id", { exact: true })
    await show(page, "explain?table=alerts&alert_id=f-1")
    expect(await field.inputValue()).toBe("f-1")
    await show(page, "explain?table=alerts&alert_id=m-1")
    await expect.poll(() => field.inputValue()).toBe("m-1")
    await page.goBack()
    await expect.poll(() => field.inputValue()).toBe("f-1")
    await show(page, "nosuch/page")
    await page.getByRole("heading", { name: "There is no page nosuch", level: 1 }).waitFor()
    expect(await page.title()).toBe("No such page · Millrace")
    await page.getByRole("main").getByRole("link", { name: "Dead letters" }).click()
    await page.getByRole("heading", { name: "Dead letters", level: 1 }).waitFor()
    for (const [path, said, other] of [
      ["windows/nope", "There is no window nope", "entity_activity"],
      ["windows?window=nope", "There is no window nope", "entity_activity"],
      ["events?topic=nope", "There is no topic nope", "alerts.v1"],
      ["live?view=nope", "There is no table nope", "alerts"],
      ["live?topic=nope", "There is no topic nope", "alerts.v1"],
      ["explain?table=nope&key=x", "There is no table nope", "alerts"],
      ["send?event=nope", "There is no event nope", "transfer"],
      ["tables/%E0%A4%A", "There is no table %E0%A4%A", "All tables"]
    ] as const) {
      await page.goto("about:blank")
      await show(page, path)
      await page.getByText(said).waitFor()
      await page.locator("main .empty").getByRole("link", { name: other, exact: true }).waitFor()
    }
    // an explanation waits for the one before
    expect(errors.filter((error) => !error.includes("409"))).toEqual([])
    await close()
  })

  test("a key that expires is asked for above the page, which keeps what was typed, and nothing else is asked meanwhile; nor while the server is away", async () => {
    const { close, page } = await open(operator)
    await show(page, "send?type=transfer")
    const field = page.locator('main [name="entity_id"]')
    const typed = {
      event_id: "k-1",
      amount: "5",
      tenant: "acme",
      occurred_at: "1357035420000",
      entity_id: "half written"
    }
    for (const [name, text] of Object.entries(typed)) await page.locator(`main [name="${name}"]`).fill(text)
    const asked: Array<string> = []
    page.on("request", (request) => {
      const { pathname } = new URL(request.url())
      // its own scripts are loaded once
      if (!pathname.startsWith("/console/")) asked.push(pathname)
    })
    const refusal = { error: { code: "unauthenticated", message: "the key has expired", try: "use another one" } }
    await page.route(/\/v1\//, (route) => route.fulfill({ status: 401, json: refusal }))
    await page.getByRole("button", { name: "Send", exact: true }).click()
    const prompt = page.getByRole("dialog", { name: "Who looks?" })
    await prompt.getByText("the key has expired").waitFor()
    expect(await field.inputValue()).toBe("half written")
    expect(await page.locator("main .page").getAttribute("inert")).not.toBeNull()
    asked.length = 0
    await page.waitForTimeout(4_000)
    expect(asked).toEqual([])
    await page.unroute(/\/v1\//)
    await page.getByLabel("API key or token").fill(operator)
    await page.getByRole("button", { name: "Use it" }).click()
    await prompt.waitFor({ state: "detached" })
    expect(await field.inputValue()).toBe("half written")
    expect(await page.locator("main .page").getAttribute("inert")).toBeNull()

    await show(page, "overview")
    await page.route(/\/(v1|healthz|readyz)/, (route) => route.abort())
    await page.getByText("The server does not answer.").waitFor()
    asked.length = 0
    await page.waitForTimeout(6_000)
    expect(asked.filter((path) => path !== "/healthz")).toEqual([])
    expect(asked.length).toBeGreaterThan(0)
    expect(asked.length).toBeLessThan(5)
    await page.unroute(/\/(v1|healthz|readyz)/)
    await page.getByText("The server does not answer.").waitFor({ state: "detached" })
    await close()
  })

  test("charts are drawn where the browser's language is not valid", async () => {
    const { close, errors, page } = await open(operator)
    await page.addInitScript(
      "Object.defineProperty(Navigator.prototype, 'language', { get: () => 'en-US@posix', configurable: true })"
    )
    await page.reload()
    await show(page, "windows/entity_activity")
    await page.locator(".chart canvas").first().waitFor()
    expect(await page.evaluate("navigator.language")).toBe("en-US@posix")
    expect(errors).toEqual([])
    await close()
  })

  test("a time is a filter as the table shows it, and an action's dialog goes when its user goes back", async () => {
    const { close, errors, page } = await open(operator, { timezoneId: "Asia/Kolkata" })
    await show(page, "tables/entity_activity")
    const cell = page.locator("tbody time").first()
    await page.getByLabel("Column").selectOption("window_start")
    await page.getByLabel("Comparison").selectOption("gte")
    await page.getByLabel("Value").fill(await cell.innerText())
    await page.getByRole("button", { name: "Add the filter" }).click()
    await page.getByRole("button", { name: /^Remove the filter window_start/ }).waitFor()
    await cell.waitFor()
    expect(await page.locator(".problem").count()).toBe(0)
    await show(page, "versions/signals")
    await page.getByRole("button", { name: "Rebuild" }).click()
    await page.getByRole("dialog").waitFor()
    await page.goBack()
    await page.getByRole("heading", { name: "Tables" }).waitFor()
    expect(await page.getByRole("dialog").count()).toBe(0)
    expect(errors).toEqual([])
    await close()
  })

  test("text of events is shown as text, whatever it looks like", async () => {
    const { close, errors, page } = await open(operator)
    for (const path of ["tables/alerts", "overview", "live?topic=events.raw.v1&from=earliest"]) {
      await show(page, path)
      await page.getByText("<img src=x", { exact: false }).first().waitFor()
      expect(await page.locator("main img, main script").count(), path).toBe(0)
      expect(await page.title(), path).toContain("Millrace")
    }
    expect(errors).toEqual([])
    await close()
  })

  test("an event is sent by a form, is refused with the field that is wrong, and is in the log and the table afterwards", async () => {
    const { close, page } = await open(operator)
    await show(page, "send?type=transfer")
    const fill = (name: string, text: string) => page.locator(`main input[name=${name}]`).fill(text)
    for (const [name, text] of Object.entries({
      event_id: "s-1",
      entity_id: "entity-2",
      amount: "1e999",
      tenant: "acme"
    }))
      await fill(name, text)
    await fill("occurred_at", "1357035420000")
    await page.getByRole("button", { name: "Send", exact: true }).click()
    await page.getByRole("alert").waitFor()
    expect(await page.getByRole("alert").textContent()).toContain("amount")
    await fill("amount", "5000")
    await page.getByRole("button", { name: "Send", exact: true }).click()
    await page.getByText("The log has it").waitFor()
    await page.getByRole("link", { name: "See it" }).click()
    await page.getByText('"event_id":"s-1"', { exact: false }).first().waitFor()
    await show(page, "tables/alerts?alert_id=s-1")
    await page.getByText("entity-2").waitFor()
    await close()
  })

  test("a command is sent by a form, and its rejection is shown with its reason", async () => {
    const { close, page } = await open(operator)
    await show(page, "aggregates/alert-case/c-1")
    await page.locator("main input[name=at]").fill("1357035420000")
    await page.locator("main input[name=entity_id]").fill("entity-3")
    await page.locator("main input[name=score]").fill("5")
    await page.getByRole("button", { name: "Send", exact: true }).click()
    await page.getByText("case.opened: the version is 1.").waitFor()
    await page.getByText('"status": "open"').waitFor()
    await page.locator("main select[name=command]").selectOption("reopen")
    await page.locator("main input[name=at]").fill("1357035420000")
    await page.locator("main input[name=by]").fill("ada")
    await page.getByRole("button", { name: "Send", exact: true }).click()
    expect(await page.getByRole("alert").textContent()).toContain("CaseNotResolved")
    await close()
  })

  test("a rebuild and a promotion do what their commands do, and say so before", async () => {
    const { close, page } = await open(operator)
    await show(page, "versions/signals")
    await page.getByRole("button", { name: "Rebuild" }).click()
    const dialog = page.getByRole("dialog")
    await dialog.getByText("npx millrace rebuild signals").waitFor()
    await dialog.getByText(/events? are replayed/).waitFor()
    await dialog.getByRole("button", { name: "Rebuild" }).click()
    await dialog.getByText(/is where the live build is|It runs/).waitFor({ timeout: 30_000 })
    await dialog.getByRole("button", { name: "Close" }).first().click()
    await page.getByText("candidate").waitFor({ timeout: 30_000 })
    await page.getByRole("button", { name: "Compare" }).click()
    await dialog.getByRole("button", { name: "Compare" }).click()
    await dialog.getByText(/have the same rows|on the page/).waitFor({ timeout: 30_000 })
    await dialog.getByRole("button", { name: "Close" }).first().click()
    await page.getByText("has the same rows as build 1").waitFor({ timeout: 30_000 })
    await page.getByRole("button", { name: "Promote" }).click()
    await dialog.getByText("nothing was changed").waitFor({ timeout: 30_000 })
    await dialog.getByRole("button", { name: "Promote" }).click()
    await dialog.getByText(/Build 2 is live/).waitFor({ timeout: 30_000 })
    await dialog.getByRole("button", { name: "Close" }).first().click()
    await page.getByText("previous").waitFor()
    await close()
  })

  test("a tenant's key sees its own rows alone, and what it may not do is said", async () => {
    await post("/v1/events", transfer("g-1", "of-globex", 4_000, "globex"))
    const tenant = await keyOf("globex", "--scopes", "read", "--tenant", "globex")
    const { close, page } = await open(tenant)
    await show(page, "tables/alerts")
    await page.getByText("of-globex").waitFor()
    expect(await page.locator("main").textContent()).not.toContain("entity-1")
    await show(page, "overview")
    await page.getByRole("alert").first().waitFor()
    expect(await page.locator("main").textContent()).not.toContain("entity-1")
    await close()
  })

  test("the keyboard alone reaches the content, a page and its controls, and Escape closes a dialog", async () => {
    const { close, page } = await open(operator)
    await show(page, "versions/signals")
    await page.keyboard.press("Tab")
    await page.locator("body").press("Home")
    await page.getByRole("link", { name: "To the content" }).focus()
    await page.keyboard.press("Enter")
    expect(await page.evaluate("document.activeElement.id")).toBe("main")
    await page.getByRole("button", { name: "Rebuild" }).focus()
    await page.keyboard.press("Enter")
    await page.getByRole("dialog").waitFor()
    await page.keyboard.press("Escape")
    await page.getByRole("dialog").waitFor({ state: "detached" })
    expect(await page.evaluate("document.activeElement.textContent")).toContain("Rebuild")
    await close()
  })
})
