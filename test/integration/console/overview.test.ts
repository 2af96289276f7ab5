// The overview, pipeline, topics, windows and timers in Chromium, on the reference application and on orders; and a server that goes away and comes back.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import type { ServeOptions } from "../../../src/server/server.ts"
import { chromium, openConsole, show } from "../../support/browser/console.ts"
import { type ServedSystem, serveSystem } from "../../support/served-system.ts"
import { needing } from "../../support/stack.ts"
import { TcpProxy } from "../../support/tcp-proxy.ts"
import ordersApplication from "../../../examples/orders/millrace.config.ts"
import signalsApplication from "../../../millrace.config.ts"

const suite = await needing("chromium")
const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
const keys = {
  mr_ann: { name: "ann", tenant: undefined, scopes: new Set(["ingest", "read", "operate"] as const) }
}
let signals: ServedSystem
let orders: ServedSystem
let browser: Browser

const post = async (url: string, path: string, body: object) => {
  const headers = { "content-type": "application/json", authorization: "Bearer mr_ann" }
  const response = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) })
  expect(response.status, await response.clone().text()).toBeLessThan(300)
}
let sent = 0
const transfer = (entity: string, amount: number) =>
  post(signals.url, "/v1/events", {
    type: "transfer",
    event_id: `t-${sent++}`,
    entity_id: entity,
    amount,
    occurred_at: 1_357_035_420_000 + sent * 60_000,
    tenant: "acme"
  })
const place = (id: string) =>
  post(orders.url, `/v1/aggregates/order/${id}/commands/place`, { customer: "ann", cents: 1_200 })
/** Waits for a text on the page. */
const sees = (page: Page, text: string | RegExp) => page.locator("main").getByText(text).first().waitFor()
const url = () => signals.url

suite("the overview and what is beside it", () => {
  beforeAll(async () => {
    const application = (one: unknown) => one as ServeOptions["application"]
    signals = await run(serveSystem(application(signalsApplication)))
    orders = await run(serveSystem(application(ordersApplication), { keys }))
    await transfer("first", 20)
    await place("o-1")
    browser = await run(chromium)
  }, 90_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test("the first sentence says what the application is, a number is there at once, and alerts appear as they are made", async () => {
    const { close, errors, page } = await openConsole(browser, url())
    await page.locator(".figure .value").first().waitFor()
    const ms = await page.evaluate<number>(
      "performance.now() - performance.getEntriesByType('navigation')[0].responseStart"
    )
    process.stdout.write(`the first number is there ${Math.round(ms)} ms after the page\n`)
    await sees(page, /^signals turns flight\.departed, .* events into alerts, .* publishes .*alerts\.v1/)
    const newest = page.getByRole("region", { name: "Newest of alerts.v1" })
    await newest.waitFor()
    await transfer("as-it-is-made", 9_000)
    await newest.getByText("as-it-is-made").waitFor()
    // how long it took, by its parts
    for (const part of ["Source", "Projection", "Relay", "Together"])
      expect(await page.locator(".steps li", { hasText: part }).first().innerText()).toMatch(/\d|replay/)
    expect(errors).toEqual([])
    await close()
  })

  test("orders, which has no alerts, are described by their own declarations, with what its commands append as it comes", async () => {
    const { close, errors, page } = await openConsole(browser, orders.url, { key: "mr_ann" })
    await sees(page, /^orders decides the commands of order, and keeps orders: /)
    await place("o-2")
    await page.getByRole("region", { name: "Newest of order" }).getByText("order.placed").first().waitFor()
    expect(await page.locator("main").innerText()).not.toMatch(/alert/i)
    expect(errors).toEqual([])
    await close()
  })

  test("a problem is shown with the command that fixes it, on the overview and in the pipeline", async () => {
    const { close, page } = await openConsole(browser, orders.url, { key: "mr_ann" })
    const { sql } = orders.system.database
    await Effect.runPromise(
      Effect.promise(
        () =>
          sql`update millrace.progress set halted = 'the disk is full' where projection = 'unpaid' and partition = 0`
      )
    )
    await page.locator(".problem").getByText("the disk is full").first().waitFor()
    await show(page, "#/pipeline?as=list")
    await sees(page, "1 partition halted")
    await sees(page, "the disk is full")
    await show(page, "#/pipeline?only=wrong&as=graph")
    await page.getByRole("link", { name: /^unpaid 1 partition halted, policy, the disk is full/ }).waitFor()
    await sql`update millrace.progress set halted = null where projection = 'unpaid'`
    await sees(page, "Nothing is halted, paused or failing")
    await close()
  })

  test("the pipeline has lookups, commands and relays as links of their own, as a graph by keyboard and as a list", async () => {
    const { close, errors, page } = await openConsole(browser, url())
    await show(page, "#/pipeline?as=graph")
    const link = page.getByRole("link", { name: "signals projection", exact: true })
    await link.focus()
    await page.locator(".graph .edge.active").first().waitFor({ state: "attached" })
    for (const kind of ["reads", "looks-up", "sends-commands-to", "publishes", "writes", "is-published-by"])
      expect(await page.locator(`.graph .edge.${kind}`).count(), kind).toBeGreaterThan(0)
    // the graph fits into a window of 1280 pixels, with texts as large as elsewhere
    const [overflow, text] = await page.locator(".graph").evaluate((graph) => {
      const box = graph.querySelector(".box text")!.getBoundingClientRect()
      return [graph.scrollWidth - graph.clientWidth, box.height]
    })
    expect(overflow).toBe(0)
    expect(text).toBeGreaterThan(11)
    await page.getByRole("button", { name: "List" }).click()
    const row = page.getByRole("row", { name: /features\.entity\.v1/ }).first()
    expect(await row.innerText()).toContain("looks up")
    await page.getByLabel("Show what has to do with").fill("entity_activity")
    await sees(page, /of \d+ parts/)
    expect(await row.count()).toBe(1)
    expect(await page.getByRole("row", { name: /escalation/ }).count()).toBe(0)
    await page.goBack()
    expect(errors).toEqual([])
    await close()
  })

  test("a topic shows who reads it and how far, and what differs from its declaration with the command", async () => {
    const { close, errors, page } = await openConsole(browser, url())
    const { sql } = signals.system.database
    await sql`update millrace.log_topic set retention_ms = 86400000 where name = 'alerts.v1'`
    await show(page, "#/topics/alerts.v1")
    await page
      .getByRole("row", { name: /open_cases, build 1 projection/ })
      .first()
      .waitFor()
    await page.getByText("differs from its declaration").waitFor()
    await page.getByText("npx millrace topics apply").waitFor()
    await sql`update millrace.log_topic set retention_ms = null where name = 'alerts.v1'`
    await page.locator("main").getByText("as declared", { exact: true }).first().waitFor()
    expect(errors).toEqual([])
    await close()
  })

  test("windows of several keys are lines and a table, with their size, grace and state, and follow what comes in", async () => {
    const { close, errors, page } = await openConsole(browser, url())
    await transfer("second", 40)
    await show(page, `#/windows/entity_activity?size=1h&keys=${encodeURIComponent('[["first"],["second"]]')}`)
    const table = page.getByRole("table", { name: "The newest windows of entity_activity" })
    await table.getByText("second").first().waitFor()
    await table.getByText("first").first().waitFor()
    await sees(page, "Each is 1 h long.")
    const of = (key: string) => table.getByRole("row", { name: new RegExp(`${key} `) }).first()
    const before = await of("first").innerText()
    await transfer("first", 30)
    await expect.poll(async () => (await of("first").innerText()) === before, { timeout: 15_000 }).toBe(false)
    expect(await table.getByText(/^(open|closed|closed in some partitions)$/).count()).toBeGreaterThan(0)
    await page.getByRole("button", { name: "1m" }).click()
    await sees(page, "Each is 1 min long.")
    expect(errors).toEqual([])
    await close()
  })

  test("a timer is listed with its stream and its time, and is discarded as by its command", async () => {
    const { close, errors, page } = await openConsole(browser, orders.url, { key: "mr_ann" })
    const { sql } = orders.system.database
    await place("o-3")
    await show(page, "#/timers")
    const row = page.getByRole("row", { name: /order o-3/ })
    await row.waitFor()
    expect(await row.innerText()).toMatch(/waiting\s+unpaid pay/)
    const waiting = async () =>
      Number(await page.locator(".figure", { hasText: "for their time" }).locator(".value").innerText())
    const before = await waiting()
    await row.getByRole("button", { name: "Discard" }).click()
    const dialog = page.getByRole("dialog")
    await dialog.getByText(/npx millrace timers discard [\da-f-]{36}/).waitFor()
    await dialog.getByRole("button", { name: "Discard" }).click()
    await dialog.getByText("1 timer discarded.").waitFor()
    await dialog.getByRole("button", { name: "Close" }).first().click()
    await row.waitFor({ state: "detached" })
    // the counts come with the list, and are as new
    expect(await waiting()).toBe(before - 1)
    expect([...(await sql`select count(*)::int as n from millrace.timer where stream = 'o-3'`)]).toEqual([{ n: 0 }])
    expect(errors).toEqual([])
    await close()
  })

  test("a server that goes away is said to, and the page goes on by itself: with the same server, and with another application that asks for a key", async () => {
    const proxy = new TcpProxy(Number(new URL(url()).port))
    await proxy.open()
    const { close, page } = await openConsole(browser, `http://127.0.0.1:${proxy.port}`)
    // the browser keeps a module that it could not load as failed
    await page.route("**/console/pages/send.js", (route) => route.abort())
    await page.reload()
    await sees(page, /^signals turns/)
    const away = page.getByText("The server does not answer.")
    // a port that nothing listens to: what listens there closes each connection
    proxy.target = 1
    proxy.cut()
    await away.waitFor()
    await sees(page, /^signals turns/)
    // a page that was not loaded before it is asked for is, once the server is back
    await page.evaluate("location.hash = '#/send'")
    await page.getByText("this page could not be loaded").waitFor()
    await page.unroute("**/console/pages/send.js")
    proxy.target = Number(new URL(url()).port)
    await away.waitFor({ state: "detached" })
    await page.locator("main select").first().waitFor()
    await show(page, "#/overview")
    proxy.target = 1
    proxy.cut()
    await away.waitFor()
    proxy.target = Number(new URL(orders.url).port)
    await page.getByLabel("API key or token").fill("mr_ann")
    await page.getByRole("button", { name: "Use it" }).click()
    await sees(page, /^orders decides/)
    await close()
    await proxy.close()
  })
})
