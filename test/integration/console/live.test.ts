// The page of live records and changes in Chromium: filters, pause, rates, and a stream that is faster than anybody reads.
import { afterAll, beforeAll, expect, test } from "vitest"
import { type ConsoleSystem, consoleSystem } from "../../support/console-system.ts"
import { reference } from "../../support/http.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("chromium")
let sent = 0
const payment = (entity: string, amount = 10, tenant = "acme") => ({
  type: "payment",
  event_id: `p-${++sent}`,
  entity_id: entity,
  amount,
  occurred_at: Date.now(),
  tenant,
  currency: "EUR",
  fee: 1,
  schema_version: 3
})
let running: ConsoleSystem

suite("the page of what comes", () => {
  beforeAll(async () => {
    running = await consoleSystem(reference)
  }, 120_000)
  afterAll(() => running?.stop())

  test("lists records as they come with key, tenant and links, filtered by key and by fields of the value", async () => {
    const { close, errors, page, show } = await running.open()
    await show("live?topic=events.raw.v1")
    await page.getByText("following").waitFor()
    await running.send([payment("a", 5), payment("b", 700)])
    await page.locator("tbody tr", { hasText: '"entity_id":"b"' }).waitFor()
    expect(await page.locator("tbody tr").count()).toBe(2)
    await page.locator("tbody tr").first().getByRole("button", { name: "More" }).click()
    await page.getByText("tenant acme").waitFor()
    await page.getByLabel("Field of the value").fill("amount")
    await page.getByLabel("Comparison").selectOption("gte")
    await page.getByLabel("Value", { exact: true }).fill("100")
    await page.getByRole("button", { name: "Add the filter" }).click()
    await page.getByText("following").waitFor()
    expect(page.url()).toContain("value.amount.gte=100")
    await running.send([payment("a", 5), payment("c", 800)])
    await page.locator("tbody tr", { hasText: '"entity_id":"c"' }).waitFor()
    expect(await page.locator("tbody tr").count()).toBe(1)
    await page.getByRole("link", { name: "c", exact: true }).click()
    await page.getByRole("heading", { name: "Entity / c" }).waitFor()
    // a field that no event has is refused with a similar name
    await show("live?topic=events.raw.v1&value.amout=5")
    await page.getByRole("alert").waitFor()
    expect(await page.getByRole("alert").textContent()).toContain("amount")
    // the browser notes the answer 400
    expect(errors.filter((error) => !error.includes("400"))).toEqual([])
    await close()
  })

  test("pauses, says how many come meanwhile, and goes on from where it was, with each of them once", async () => {
    const { close, errors, page, show } = await running.open()
    await show("live?topic=events.raw.v1&key=paused")
    await page.getByText("following").waitFor()
    await running.send([payment("paused", 1)])
    await page.locator("tbody tr").waitFor()
    await page.getByRole("button", { name: "Pause" }).click()
    await running.send([payment("paused", 2), payment("other", 2), payment("paused", 3)])
    await page.getByText("2 records came meanwhile").waitFor()
    expect(await page.locator("tbody tr").count()).toBe(1)
    await page.getByRole("button", { name: "Go on" }).click()
    await page.locator("tbody tr").nth(2).waitFor()
    expect(
      (await page.locator("tbody code").allTextContents()).map((text) => /"amount":(\d+)/.exec(text)?.[1])
    ).toEqual(["3", "2", "1"])
    expect(errors).toEqual([])
    await close()
  })

  test("a hidden tab has no stream, and goes on from where it was once it is seen, with each record once", async () => {
    const { close, errors, page, show } = await running.open()
    const ended: Array<string> = []
    page.on("requestfailed", (request) => ended.push(new URL(request.url()).pathname))
    const hide = (isHidden: boolean) =>
      page.evaluate(
        `Object.defineProperty(document, "hidden", { value: ${isHidden}, configurable: true });` +
          `document.dispatchEvent(new Event("visibilitychange"))`
      )
    await show("live?topic=events.raw.v1&key=hidden")
    await page.getByText("following").waitFor()
    await running.send([payment("hidden", 1)])
    await page.locator("tbody tr").waitFor()
    await hide(true)
    await expect.poll(() => ended.filter((path) => path.endsWith("/stream")).length).toBe(1)
    await running.send([payment("hidden", 2), payment("hidden", 3)])
    await page.waitForTimeout(1_000)
    expect(await page.locator("tbody tr").count()).toBe(1)
    await hide(false)
    await page.locator("tbody tr").nth(2).waitFor()
    expect(
      (await page.locator("tbody code").allTextContents()).map((text) => /"amount":(\d+)/.exec(text)?.[1])
    ).toEqual(["3", "2", "1"])
    expect(errors).toEqual([])
    await close()
  })

  test("shows the changes of a window, with the columns that changed", async () => {
    const { close, errors, page, show } = await running.open()
    await show("live?view=entity_activity&entity_id=w")
    await page.getByText("following").waitFor()
    await running.send([payment("w", 5)])
    await page.locator("tbody tr", { hasText: "1h" }).waitFor()
    await running.send([payment("w", 6)])
    const changed = page.locator("tbody tr", { hasText: "changed" }).filter({ hasText: "1h" })
    await changed.waitFor()
    expect(await changed.locator("code").textContent()).toMatch(/^{"events":2,"score_sum":11,"score_max":6}$/)
    await changed.getByRole("button", { name: "More" }).click()
    await page.getByRole("link", { name: "Why is this row so?" }).click()
    await page.getByText("a replay gives the same row").waitFor()
    expect(errors).toEqual([])
    await close()
  })

  test("a stream that is faster than a list: the list is bounded and says that it is a sample, and the page stays quick", async () => {
    await running.send(Array.from({ length: 20_000 }, (_, i) => payment(`f-${i % 500}`)))
    const { close, errors, page, show } = await running.open()
    await show("live?topic=events.raw.v1&from=earliest")
    const status = page.locator("div[role=status]", {
      hasText: /20,0\d\d since the page was opened, 19,\d\d\d of them not/
    })
    await status.waitFor().catch(async (error: unknown) => {
      throw new Error(`${(await page.locator("div[role=status]").allTextContents()).join()}: ${String(error)}`)
    })
    expect(await page.locator("tbody tr").count()).toBe(100)
    expect(errors).toEqual([])
    await close()
  })
})
