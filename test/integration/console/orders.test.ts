// The pages of a key, of events and of what comes in Chromium, on an application without events from outside: orders, which commands change.
import { afterAll, beforeAll, expect, test } from "vitest"
import { orders } from "../../../examples/orders/millrace.config.ts"
import { Order } from "../../../examples/orders/order.ts"
import { Application, Projection } from "../../../src/index.ts"
import { type ConsoleSystem, consoleSystem } from "../../support/console-system.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("chromium")
// as in the example, but a row of a cancelled order is deleted
const orderList = Projection.make({
  name: "order_list",
  version: 1,
  source: Order,
  writes: [orders],
  handle: {
    "order.placed": ({ cents, customer, order_id }, out) =>
      out.upsert(orders, { order_id, customer, cents, status: "placed" }),
    "order.paid": ({ order_id }, out) => out.update(orders, { order_id, status: "paid" }),
    "order.cancelled": ({ order_id }, out) => out.delete(orders, { order_id })
  }
})
const application = Application.make({
  name: "orders",
  aggregates: [Order],
  projections: [Projection.inline(orderList)]
})
let running: ConsoleSystem
const command = async (id: string, name: string, fields: object = {}) => {
  const response = await fetch(`${running.url}/v1/aggregates/order/${encodeURIComponent(id)}/commands/${name}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(fields)
  })
  expect(response.status, await response.text()).toBeLessThan(300)
}

suite("the pages of an application of another kind", () => {
  beforeAll(async () => {
    running = await consoleSystem(application as never)
    await command("o-1", "place", { customer: "ann", cents: 500 })
    await command("o-2", "place", { customer: "bob", cents: 700 })
    await command("o-1", "pay", { method: "card" })
    await command("o-2", "cancel", { reason: "too late" })
  }, 120_000)
  afterAll(() => running?.stop())

  test("a key has the aggregate's state and its row at each event, and a row that was deleted is there before that", async () => {
    const { close, errors, page, show } = await running.open()
    await show("entity/o-1")
    const state = page.locator("section", { has: page.getByRole("heading", { name: "order", exact: true }) })
    const row = page.locator("article")
    await state.getByText("version 2 of 2").waitFor()
    await row.getByText("changed").waitFor()
    expect(await row.locator("dd.mark").allTextContents()).toEqual(["placed paid"])
    expect(await state.locator("dd.mark").allTextContents()).toEqual(["placed paid"])
    await page.getByRole("button", { name: "Earlier" }).click()
    await state.getByText("version 1 of 2").waitFor()
    await row.getByText("created").waitFor()
    expect(await state.textContent()).toContain("placed")
    await show("entity/o-2")
    await row.getByText("The event deleted it.").waitFor()
    await page.getByRole("button", { name: "Earlier" }).click()
    await row.getByText("created").waitFor()
    expect(await row.textContent()).toContain("700")
    expect(errors).toEqual([])
    await close()
  })

  test("the pages name what this application has, and nothing of another", async () => {
    const { close, errors, page, show } = await running.open()
    await show("entity")
    await page.getByRole("link", { name: "o-1" }).waitFor()
    await show("events")
    await page.locator("tbody tr", { hasText: "order.cancelled" }).waitFor()
    expect(await page.locator("tbody tr").count()).toBe(4)
    await page.locator("tbody tr", { hasText: "order.paid" }).getByRole("link").first().click()
    const dialog = page.getByRole("dialog")
    await dialog.getByText("millrace-version").waitFor()
    // only commands append them
    expect(await dialog.textContent()).not.toContain("curl -X POST")
    await dialog.getByText("Commands append its events").waitFor()
    await show("live")
    await page.getByText("following").waitFor()
    await command("o-3", "place", { customer: "cat", cents: 900 })
    await page.locator("tbody tr", { hasText: "order.placed" }).waitFor()
    await show("explain?table=orders&order_id=o-3")
    await page.getByText("a replay gives the same row").waitFor()
    for (const path of ["entity", "events", "live", "explain"]) {
      await show(path)
      expect(await page.locator("main").textContent(), path).not.toMatch(/alert/i)
    }
    expect(errors).toEqual([])
    await close()
  })
})
