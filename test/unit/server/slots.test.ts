// How requests share the slots of a server.
import { expect, test } from "vitest"
import { anyone } from "../../../src/server/access/principal.ts"
import { Slots } from "../../../src/server/http/slots.ts"

/** Takes as many slots as there are. Returns what gives them back. */
const takeAll = (slots: Slots, principal: Parameters<Slots["take"]>[0]) => {
  const held: Array<() => void> = []
  try {
    for (;;) held.push(slots.take(principal, "requests read"))
  } catch (error) {
    expect(error).toMatchObject({ status: 429, code: "overloaded" })
    return held
  }
}
const key = (name: string, tenant?: string) => ({ name, tenant })

test("alone a credential gets half, and those that come later find some; keys of one tenant count together", () => {
  const slots = new Slots(16)
  const first = takeAll(slots, key("a", "acme"))
  expect(first).toHaveLength(8)
  expect(() => slots.take(key("b", "acme"), "requests read")).toThrow(
    "8 requests read for this tenant or credential, which is its share of 16 now"
  )
  expect(takeAll(slots, key("c", "globex"))).toHaveLength(4)
  // of all tenants, with the name of a tenant
  expect(takeAll(slots, key("acme"))).toHaveLength(2)
  for (const release of first) {
    release()
    // giving back twice counts once
    release()
  }
  expect(takeAll(slots, key("d", "other"))).toHaveLength(5)
})

test("requests without a credential may have all of them", () => {
  const slots = new Slots(3)
  expect(takeAll(slots, anyone)).toHaveLength(3)
  expect(() => slots.take(anyone, "requests read")).toThrow("3 requests read, which is the limit of this server")
})
