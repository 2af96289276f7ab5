// Two tenants and the console: the key of one sees nothing of the other in any response or page, and pages that a key may not use say which key may.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import { chromium, eventually, openConsole, routes, show, signIn, walk } from "../../support/browser/console.ts"
import application from "../../support/browser/hostile.ts"
import { keysOf, type ServedSystem, serveSystem } from "../../support/served-system.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("chromium")
const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
const keys = keysOf({
  mr_all: [undefined, "ingest", "read", "operate"],
  mr_acme: ["acme", "ingest", "read"],
  mr_globex: ["globex", "ingest", "read"],
  mr_reader: [undefined, "read"],
  mr_sender: [undefined, "ingest"],
  mr_nothing: [undefined]
})
let running: ServedSystem
let browser: Browser

const post = async (key: string, path: string, body: unknown) => {
  const response = await fetch(running.url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", "idempotency-key": key },
    body: JSON.stringify(body)
  })
  expect(response.status, await response.text()).toBeLessThan(300)
}
const note = (id: string, tenant: string, fails = false) => ({
  type: "noted",
  id: `${id} of ${tenant}mark`,
  subject: `subject of ${tenant}mark`,
  tenant,
  text: `text of ${tenant}mark`,
  size: 1,
  at: 1_767_225_600_000,
  fails
})
/** What the key of acme must not get: everything that globex sent has it. */
const mark = "globexmark"
/** Pages that show what they are for also without what a key may not see. */
const goesWithout = new Set(["windows"])
const hasMark = async (page: Page) =>
  (await page.evaluate<string>("document.documentElement.outerHTML + document.title")).includes(mark)

suite("two tenants", () => {
  beforeAll(async () => {
    running = await run(serveSystem(application, { keys }))
    for (const tenant of ["globex", "acme"]) {
      await post(
        `mr_${tenant}`,
        "/v1/events",
        [...Array(6).keys()].map((i) => note(`${i}`, tenant))
      )
      await post(`mr_${tenant}`, "/v1/events", [note("failed", tenant, true)])
      await post(`mr_${tenant}`, `/v1/aggregates/page/page-of-${tenant}mark/commands/write`, {
        text: `${tenant}mark`,
        isFine: true
      })
    }
    const count = async (table: string) =>
      Number((await running.system.database.sql.unsafe(`select count(*)::int from ${table}`))[0]!["count"])
    await eventually(async () => (await count("kept_notes")) === 12)
    await eventually(async () => (await count("millrace.dead_letters")) === 2)
    browser = await run(chromium)
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test("with the key of one, no response and no page has anything of the other", { timeout: 90_000 }, async () => {
    const { close, page } = await openConsole(browser, running.url, { key: "mr_acme" })
    const found: Array<string> = []
    let responses = 0
    page.on("response", (response) => {
      // the body of a stream is read when it is there; the page shows what came
      if (!response.url().includes("/v1/") || response.headers()["content-type"]?.includes("event-stream")) return
      responses++
      response.text().then(
        (text) => text.includes(mark) && found.push(response.url()),
        () => undefined
      )
    })
    const own = new Set<string>()
    await walk(
      page,
      async (link) => {
        // a stream's first records come after the page
        if (link.startsWith("#/live?topic=notes")) await page.getByText("acmemark").first().waitFor()
        if (await hasMark(page)) found.push(link)
        if ((await page.locator("main").innerText()).includes("acmemark")) own.add(link.split(/[?/]/)[1]!)
      },
      [
        "#/tables/kept_notes",
        "#/tables/notes_by_hour",
        `#/tables/kept_notes?subject=subject+of+${mark}`,
        "#/tables/pages",
        "#/live?topic=notes.v1&from=earliest",
        "#/live?topic=page&from=earliest",
        `#/live?topic=page&from=earliest&tenant=globex`,
        "#/events?topic=notes.v1",
        "#/events?topic=notes.v1&partition=1",
        `#/windows/notes_by_hour?tenant=globex`,
        `#/aggregates/page/page-of-${mark.replace("mark", "")}mark`,
        "#/dead-letters/1",
        `#/explain?table=kept_notes&subject=subject+of+${mark}&id=1+of+${mark}`
      ]
    )
    // what names the other in the address is in the page: it is what its user typed
    const typed = (link: string) => link.startsWith("#") && link.includes(mark)
    expect(found.filter((link) => !typed(link) && !decodeURIComponent(link).includes(mark))).toEqual([])
    expect(responses).toBeGreaterThan(20)
    for (const name of ["tables", "live"]) expect([...own], name).toContain(name)
    await close()
  })

  test("windows that a key of a tenant cannot read are not called missing", async () => {
    interface Listed {
      readonly views: ReadonlyArray<{ readonly kind: string }>
      readonly withheld: Readonly<Record<string, number>>
    }
    const listed = async (key: string) =>
      (await (await fetch(`${running.url}/v1/views`, { headers: { authorization: `Bearer ${key}` } })).json()) as Listed
    const [all, own] = [await listed("mr_all"), await listed("mr_acme")]
    expect(all.withheld).toEqual({ table: 0, window: 0, view: 0 })
    expect(own.views.length + Object.values(own.withheld).reduce((sum, n) => sum + n, 0)).toBe(all.views.length)
    const { close, page } = await openConsole(browser, running.url, { key: "mr_acme" })
    // as of an application whose only window does not say whose its rows are
    await page.route(/v1\/views$/, async (route) => {
      const response = await route.fetch()
      const { views } = (await response.json()) as Listed
      const others = views.filter(({ kind }) => kind !== "window")
      await route.fulfill({ response, json: { views: others, withheld: { table: 0, window: 1, view: 0 } } })
    })
    await show(page, "#/windows")
    await page.getByText("Your credential reads no window of this application").waitFor()
    await page.getByText("use a credential without a tenant").waitFor()
    await close()
  })

  test("the key of another tenant in place of one that expired drops all that the page shows, at once", async () => {
    const { close, page } = await signIn(browser, running.url, "mr_globex")
    const use = async (key: string) => {
      await page.getByLabel("API key or token").fill(key)
      await page.getByRole("button", { name: "Use it" }).click()
      await page.getByRole("dialog", { name: "Who looks?" }).waitFor({ state: "detached" })
    }
    await show(page, "#/send?type=noted")
    await page.evaluate(
      `sessionStorage.setItem("millrace.sent", ${JSON.stringify(JSON.stringify([{ type: "noted", body: mark }]))})`
    )
    await show(page, "#/tables/kept_notes")
    await page.getByText(mark).first().waitFor()
    const refusal = { error: { code: "unauthenticated", message: "the key has expired", try: "use another one" } }
    await page.route(/\/v1\//, (route) => route.fulfill({ status: 401, json: refusal }))
    await page.evaluate("dispatchEvent(new Event('instance'))")
    await page.getByText("the key has expired").first().waitFor()
    expect(await hasMark(page)).toBe(true)
    await page.unroute(/\/v1\//)
    // no answer comes that would replace what is shown
    await page.route(/\/v1\/(views|topics)/, () => undefined)
    await use("mr_acme")
    expect(await hasMark(page)).toBe(false)
    await page.unroute(/\/v1\/(views|topics)/)
    await show(page, "#/send?type=noted")
    expect(await hasMark(page)).toBe(false)
    await close()
  })

  test("what a key may not do is not offered, and nothing is asked for that it may not see", async () => {
    const open = async (key: string) => {
      const opened = await openConsole(browser, running.url, { key })
      const { page } = opened
      await page.waitForFunction(
        "performance.getEntriesByType('resource').some(({ name }) => name.endsWith('v1/credential'))"
      )
      // the first page asks before it is known what the key may do
      await show(page, "#/live")
      const refused: Array<string> = []
      page.on("response", (response) => response.status() === 403 && refused.push(response.url()))
      const needs = await page.locator("nav a:has(small)").allInnerTexts()
      return { ...opened, refused, needs: needs.map((one) => one.replaceAll(/\s+/g, " ")) }
    }
    const system = ["Pipeline", "Topics", "Versions", "Timers", "Dead letters"].map((title) => `${title} needs operate`)
    const reader = await open("mr_reader")
    expect(reader.needs.toSorted()).toEqual(["Send needs ingest", ...system].toSorted())
    await show(reader.page, "#/send")
    await reader.page.getByText("mr_reader has read, and this needs the scope ingest").waitFor()
    await reader.page.getByText("npx millrace keys create NAME --scopes ingest,read").waitFor()
    expect(await reader.page.locator("main form").count()).toBe(0)
    await show(reader.page, "#/aggregates/page/page-of-acmemark")
    await reader.page.getByText("mr_reader has read, and this needs the scope ingest").waitFor()
    const archive = reader.page.getByRole("button", { name: "Archive" })
    expect([await archive.isDisabled(), await archive.getAttribute("title")]).toEqual([
      true,
      "mr_reader has read, and this needs the scope operate"
    ])
    const acme = await open("mr_acme")
    expect(acme.needs.toSorted()).toEqual(system.toSorted())
    for (const name of routes) await show(acme.page, `#/${name}`)
    await show(acme.page, "#/topics")
    await acme.page.getByText("mr_acme belongs to the tenant acme, and this is about all tenants").waitFor()
    await show(acme.page, "#/aggregates/page/page-of-acmemark")
    expect(await acme.page.getByRole("button", { name: "Send", exact: true }).isEnabled()).toBe(true)
    const all = await open("mr_all")
    expect(all.needs).toEqual([])
    expect([...reader.refused, ...acme.refused, ...all.refused]).toEqual([])
    for (const { close } of [reader, acme, all]) await close()
  })

  for (const [key, text] of [
    ["mr_reader", "a key that only reads"],
    ["mr_acme", "a key of a tenant"],
    ["mr_sender", "a key that only sends"],
    ["mr_nothing", "a key without scopes"]
  ] as const)
    test(
      `${text} opens every page: what it may not see is named, with the command for a key that may`,
      { timeout: 60_000 },
      async () => {
        const { close, errors, page } = await openConsole(browser, running.url, { key })
        const silent: Array<string> = []
        let refusals: Array<string> = []
        page.on("response", (response) => response.status() === 403 && refusals.push(response.url()))
        for (const name of routes) {
          refusals = []
          await show(page, `#/${name}`)
          const text = await page.locator("main").innerText()
          if (refusals.length > 0 && !goesWithout.has(name) && !/millrace keys create/.test(text))
            silent.push(`${name}: ${refusals[0]}: ${text.slice(0, 300)}`)
        }
        expect(silent.join("\n\n")).toBe("")
        expect(errors).toEqual([])
        await close()
      }
    )
})
