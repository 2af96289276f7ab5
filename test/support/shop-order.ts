// Events of the shop in shop.config.ts.

/** An order of two pieces; those with the sku `broken` fail. */
export const order = (id: string, customer: string, sku = "pen") => ({
  type: "ordered",
  id,
  customer,
  at: 1_767_268_800_000,
  tenant: "acme",
  lines: [{ sku, count: 2 }],
  payment: { kind: "cash" },
  priority: "low",
  gift: false,
  cents: "9007199254740993",
  note: null
})
