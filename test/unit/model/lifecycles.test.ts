// Aggregates as sources of projections, and which projections can run inline.
import { Schema } from "effect"
import { describe, expect, test } from "vitest"
import { Agg, Aggregate, Application, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { aggregatesOf, partitionsOf, topicsOf } from "../../../src/model/application.ts"
import { chainsOf } from "../../../src/model/chains.ts"
import { definitionOf } from "../../../src/model/definition.ts"
import type { Writable } from "../../../src/model/handler.ts"
import { Account, Moved, accounts, balances, total, turnover } from "../../support/accounts.ts"

const value = { account_id: Schema.String, n: Schema.Int }
const derived = Topic.records("accounts.v1", { value, key: "account_id" })
const payments = Topic.records("payments.v1", { value, key: "account_id", partitions: 3 })
const projectionOf = (name: string, writes: ReadonlyArray<Writable>, more: object = {}) =>
  Projection.make({
    name,
    version: 1,
    source: Account,
    writes,
    handle: () => undefined,
    ...more
  } as never) as unknown as Projection<string, unknown, Writable, never, never, "aggregate">

describe("an aggregate as a source", () => {
  const publishing = projectionOf("publishing", [derived])
  const application = Application.make({
    name: "a",
    aggregates: [Account],
    projections: [
      Projection.async(publishing),
      Projection.async(projectionOf("mixed", [], { source: [payments, Account] }))
    ]
  })
  test("is declared once, and by the event store: its topic is none of the application's topics", () => {
    expect(aggregatesOf(application)).toEqual([Account])
    expect(topicsOf(application).map(({ topic }) => topic.name)).toEqual([
      "accounts.v1",
      "account.publishing.dlq",
      "payments.v1",
      "payments.v1.mixed.dlq",
      "account.mixed.dlq"
    ])
  })
  test("gives derived topics and dead-letter topics as many partitions as it has", () => {
    const partitions = partitionsOf(application)
    expect(
      ["account", "accounts.v1", "account.publishing.dlq", "payments.v1"].map((name) => partitions.get(name))
    ).toEqual([4, 4, 4, 3])
  })
  test("feeds the topics that are derived from it", () => {
    const next = projectionOf("next", [], { source: derived })
    expect(chainsOf([publishing, next]).feeds.get("accounts.v1")).toEqual([
      { projection: "publishing", source: "account" }
    ])
  })
  test("is a part of the definition, with its event time", () => {
    expect(definitionOf(publishing)["source account"]).toEqual({
      kind: "aggregate",
      key: null,
      eventTime: "at",
      tenant: null
    })
  })
  test("cannot be two aggregates of one name", () => {
    const other = Aggregate.make({
      name: "account",
      events: [Moved],
      commands: { close: { account_id: Schema.String } },
      state: Schema.Null,
      initial: null,
      evolve: { "account.moved": (state) => state },
      decide: { close: () => [] }
    })
    expect(() =>
      Application.make({ name: "a", aggregates: [other], projections: [Projection.async(accounts)] })
    ).toThrow("two aggregates are called account; declare it once, or rename one of the two")
  })
})

describe("a projection that runs inline", () => {
  test("has tables, and windows without an end", () => {
    const counts = { key: { account_id: Schema.String }, aggregate: { n: Agg.count } }
    const daily = Window.calendar("daily", { ...counts, unit: "day", timeZone: "UTC", grace: "Infinity" })
    expect(Projection.inline(accounts)).toEqual({ lifecycle: "inline", projection: accounts })
    expect(Projection.inline(projectionOf("p", [balances, turnover, total, daily])).lifecycle).toBe("inline")
  })
  const lookup = Topic.compacted("rates", { value: { account_id: Schema.String }, key: "account_id" })
  const closing = Window.tumbling("hourly", {
    key: { account_id: Schema.String },
    aggregate: { n: Agg.count },
    size: "1 hour"
  })
  test.each([
    [
      "topics",
      projectionOf("p", [], { source: payments }),
      /it reads payments\.v1, and an inline projection reads one aggregate/
    ],
    [
      "several sources",
      projectionOf("p", [], { source: [Account, payments] }),
      /it reads account, payments\.v1, and an inline/
    ],
    ["dedupe", projectionOf("p", [], { dedupe: { within: "1 hour", by: "account_id" } }), /it has `dedupe`/],
    [
      "lookups",
      projectionOf("p", [], { enrich: { rate: lookup } }),
      /it looks up rate, which an append does not wait for/
    ],
    [
      "publishing",
      projectionOf("p", [derived]),
      /accounts\.v1 is published, and an append publishes nothing but its events/
    ],
    [
      "published windows",
      projectionOf("p", [
        Window.global("w", { key: { account_id: Schema.String }, aggregate: { n: Agg.count }, publish: "w.v1" })
      ]),
      /w is published/
    ],
    [
      "windows that close",
      projectionOf("p", [closing]),
      /hourly closes by stream time, which an append does not have; declare it with `grace: "Infinity"`/
    ]
  ])("is refused with what to do instead: %s", (_, projection, reason) => {
    expect(() => Projection.inline(projection)).toThrow(reason)
    expect(() => Projection.inline(projection)).toThrow(/Projection\.async/)
  })
  test("is none of an application's stored projections if it is folded when it is read", () => {
    const application = Application.make({ name: "a", projections: [Projection.live(accounts)] })
    expect(application).toMatchObject({ projections: [], live: [accounts] })
    expect(aggregatesOf(application)).toEqual([Account])
  })
  test("keeps its version when its lifecycle changes: two runs of one version are refused", () => {
    expect(() =>
      Application.make({ name: "a", projections: [Projection.inline(accounts), Projection.async(accounts)] })
    ).toThrow(/two projections are called accounts and have version 1/)
  })
})

test("a table of one projection can be written by another one only if both share it, whatever their lifecycles", () => {
  const same = ReadModel.table("balances", { columns: { account_id: Schema.String }, primaryKey: ["account_id"] })
  expect(() =>
    Application.make({
      name: "a",
      projections: [Projection.inline(accounts), Projection.async(projectionOf("p", [same]))]
    })
  ).toThrow(/projections accounts and p write the same read model balances/)
})

describe("the name of an aggregate", () => {
  const made = (...projections: ReadonlyArray<Parameters<typeof Projection.async>[0]>) =>
    Application.make({ name: "a", aggregates: [Account], projections: projections.map(Projection.async) as never })
  const named = Topic.records("account", { value, key: "account_id" })
  test("is not that of a topic, which would have the aggregate's events", () => {
    expect(() => made(projectionOf("p", [named]))).toThrow(
      "topic account of projection p has the name of an aggregate, whose events are the topic account; rename the topic, or give the aggregate itself as source"
    )
    expect(() => made(projectionOf("p", [balances], { source: named }))).toThrow(/topic account of projection p/)
    const lookup = Topic.compacted("account", { value, key: "account_id" })
    const enriched = projectionOf("p", [balances], { enrich: { of: { topic: lookup, by: () => "k" } } })
    expect(() => made(enriched)).toThrow(/topic account of projection p/)
  })
  test("is not that of a projection that reads it and publishes, whose messages would be in one stream with its events", () => {
    expect(() => made(projectionOf("account", [derived]))).toThrow(
      "projection account has the name of the aggregate that it reads, and publishes to accounts.v1: its messages and the aggregate's events would be numbered in one stream; rename the projection"
    )
    expect(made(projectionOf("account", [derived], { source: payments })).projections).toHaveLength(1)
  })
})
