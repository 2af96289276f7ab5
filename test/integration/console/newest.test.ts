// What the console shows where a topic's last positions are no records to people, where a server was away, and where dead letters are of builds that follow.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import { Application, Event, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { timeHeader } from "../../../src/log/time-mark.ts"
import { streamHeaders } from "../../../src/log/envelope.ts"
import type { ServeOptions } from "../../../src/server/server.ts"
import { record } from "../../contract/log-support.ts"
import { chromium, openConsole, show } from "../../support/browser/console.ts"
import { type ServedSystem, serveSystem } from "../../support/served-system.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("chromium")
const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
const fields = { id: Schema.String, station: Schema.String, at: Schema.Int }
const readings = Topic.events("readings", {
  events: [Event.make("measured", fields), Event.make("repaired", fields)],
  partitions: 2,
  key: "station",
  id: "id",
  eventTime: "at"
})
const stations = ReadModel.table("stations", { columns: { station: Schema.String }, primaryKey: ["station"] })
const application = Application.make({
  name: "weather",
  projections: [
    Projection.async(
      Projection.make({
        name: "weather",
        version: 1,
        source: readings,
        writes: [stations],
        handle: ({ station }, out) => out.upsert(stations, { station })
      })
    )
  ]
})
let running: ServedSystem
let browser: Browser
const send = async (...events: ReadonlyArray<object>) => {
  const headers = { "content-type": "application/json" }
  const response = await fetch(`${running.url}/v1/events`, { method: "POST", headers, body: JSON.stringify(events) })
  expect(response.status, await response.clone().text()).toBe(202)
}
const event = (type: string, station: string, i: number) => ({
  type,
  id: `${station}-${i}`,
  station,
  at: 1_700_000_000_000 + i
})
/** Announcements of a time, which have positions and are no records to people. */
const announced = (partition: number, count: number) =>
  Array.from({ length: count }, () =>
    record({
      partition,
      key: null,
      value: null,
      eventTime: 0,
      headers: { [timeHeader]: "1700000000000", [streamHeaders.stream]: "other/readings/0" }
    })
  )
const main = (page: Page) => page.locator("main")
/** Answers requests that match with what a function makes of the server's answer. */
const changed = (page: Page, path: RegExp, change: (body: Record<string, unknown>) => object) =>
  page.route(path, async (route) => {
    const response = await route.fetch()
    await route.fulfill({ response, json: change((await response.json()) as Record<string, unknown>) })
  })

suite("what a page says of what it does not have", () => {
  beforeAll(async () => {
    running = await run(serveSystem(application as unknown as ServeOptions["application"]))
    await send(event("repaired", "oldest", 0))
    await send(...Array.from({ length: 300 }, (_, i) => event("measured", `s${i % 4}`, i)))
    await send(event("measured", "newest-of-all", 1))
    for (const partition of [0, 1]) await run(running.system.log.append("readings", announced(partition, 3_000)))
    browser = await run(chromium)
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test("the newest is found behind thousands of positions that only announce a time, on the overview and in both partitions", async () => {
    const { close, errors, page } = await openConsole(browser, running.url)
    await page
      .getByRole("region", { name: "Newest of readings", exact: true })
      .getByText("newest-of-all")
      .first()
      .waitFor()
    for (const address of ["topic=readings", "topic=readings&partition=0", "topic=readings&partition=1"]) {
      await show(page, `#/events?${address}`)
      await page.getByRole("table", { name: "Records of readings" }).getByText("measured").first().waitFor()
    }
    expect(errors).toEqual([])
    await close()
  })
  test("the newest of one type is found by the server, however many others came after it", async () => {
    const { close, errors, page } = await openConsole(browser, running.url)
    await show(page, "#/events?topic=readings&type=repaired")
    await page
      .getByRole("table", { name: "Records of readings" })
      .getByRole("cell", { name: "oldest" })
      .first()
      .waitFor()
    expect(errors).toEqual([])
    await close()
  })
  test("what no request reached is not called missing: the page says how far it looked, and goes on from there", async () => {
    const { close, page } = await openConsole(browser, running.url)
    await changed(page, /readings\/records/, (body) => ({
      ...body,
      records: [],
      next: 7,
      searched: { from: 7, to: body["end"] }
    }))
    await show(page, "#/events?topic=readings")
    await main(page).getByText("None here, so far").waitFor()
    await main(page)
      .getByText(/It looked at [\d,]+ positions, and ended at its limit in 2 partitions/)
      .waitFor()
    expect(await main(page).getByText("No records here").count()).toBe(0)
    await page.unroute(/readings\/records/)
    await main(page).getByRole("link", { name: "look further in partition 0" }).click()
    await page.waitForURL(/partition=0&order=desc&from=7/)
    // the last position, and not the end, which is the one after it
    const { end } = (await (await fetch(`${running.url}/v1/topics/readings/records?partition=0`)).json()) as {
      readonly end: number
    }
    await main(page)
      .getByText(`Partition 0 has the positions 0 to ${(end - 1).toLocaleString("en-US")}.`)
      .waitFor()
    await close()
  })
  test("a position beyond the end is refused with a reason that says up to where there are some", async () => {
    const { close, page } = await openConsole(browser, running.url)
    await show(page, "#/events?topic=readings&partition=0&order=desc&from=99999")
    await main(page)
      .getByText(/the parameter from is "99999"; it must be from 0 to 3\d{3}$/)
      .waitFor()
    await close()
  })
  test("an event that the server did not answer to is not called unanswered once it is back", async () => {
    const { close, page } = await openConsole(browser, running.url)
    await show(page, "#/send?type=measured")
    for (const [name, value] of Object.entries({ id: "late", station: "late", at: "1700000000000" }))
      await page.locator(`main [name="${name}"]`).fill(value)
    const away = /\/(v1\/events|healthz)$/
    await page.route(away, (route) => route.abort())
    await page.getByRole("button", { name: "Send", exact: true }).click()
    await page.locator(".problem").getByText("the server does not answer").waitFor()
    await page.unroute(away)
    await main(page).getByText("The server did not answer, and is back").waitFor()
    expect(await page.locator(".problem").count()).toBe(0)
    await close()
  })
  test("dead letters of builds that follow are counted beside those of the live ones, and the system's state names them", async () => {
    const { close, errors, page } = await openConsole(browser, running.url)
    await changed(page, /operations\/status$/, (body) => ({ ...body, dead_letters: 0, follower_dead_letters: 8 }))
    await main(page).getByText("of live builds; and 8 of builds that follow").waitFor()
    const pill = (name: string) => page.locator(".sentence").getByRole("link", { name, exact: true }).waitFor()
    await pill("8 dead letters of builds that follow")
    expect(await main(page).getByText("none is open").count()).toBe(0)
    // one way of counting, also where there are some of both
    await changed(page, /operations\/status$/, (body) => ({ ...body, dead_letters: 39, follower_dead_letters: 16 }))
    await pill("39 dead letters, and 16 of builds that follow")
    await main(page).getByText("wait for a decision; and 16 of builds that follow").waitFor()
    expect(errors).toEqual([])
    await close()
  })
  test("timers and commands that fail are counted among what fails now", async () => {
    const { close, errors, page } = await openConsole(browser, running.url)
    const failing = page.locator(".figure", { hasText: "Failing now" })
    await failing.getByText("nothing is tried again").waitFor()
    await changed(page, /operations\/status$/, (body) => ({
      ...body,
      timers: { waiting: 3, due: 1, oldest_ms: 9, failing: 1 }
    }))
    await failing.getByText("1 timer or command", { exact: true }).waitFor()
    expect(await failing.locator(".value").innerText()).toBe("1")
    expect(errors).toEqual([])
    await close()
  })
})
