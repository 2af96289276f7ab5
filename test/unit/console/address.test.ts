// The address of a page of the console: its path's parts and its parameters.
import { expect, test } from "vitest"

// the console is plain JavaScript without types
// oxlint-disable-next-line typescript/no-explicit-any -- see above
const load = (name: string): Promise<any> => import(new URL(`../../../src/console/lib/${name}`, import.meta.url).href)
const { linkTo, routeOf } = await load("router.js")

test("an address is read as it was written, and a part that was cut off within a character stays as it is", () => {
  const link = linkTo(["entity", "é/%?#"], { at: "a b&c", empty: "" })
  expect(routeOf(link)).toEqual({ path: ["entity", "é/%?#"], query: { at: "a b&c" } })
  expect(routeOf("#/entity/%E0%A4%A?at=%E0%A4")).toEqual({ path: ["entity", "%E0%A4%A"], query: { at: "\uFFFD" } })
  expect(routeOf("")).toEqual({ path: [""], query: {} })
})
