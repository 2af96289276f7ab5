// Tenants on a real Pulsar by the admin interface: planned, created, checked, and corrected after someone else changed them.
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { shared } from "../../../stack/testing.ts"
import { alertsTopic } from "../../../projections/signals.ts"
import { Admin } from "../../../src/pulsar/client/admin.ts"
import { apply, differs, plan, type ResourcePlan } from "../../../src/pulsar/tenants.ts"
import { Tenancy } from "../../../src/model/tenancy.ts"
import { optionsOf } from "../../support/pulsar.ts"
import { needing } from "../../support/stack.ts"

const admin = Effect.map(shared("pulsar"), (endpoints) => new Admin(optionsOf("websocket", endpoints)))
const of = (name: string, partitions = 1) =>
  Tenancy.make({
    tenants: [name, { name: `${name}-2`, role: "other", actions: ["consume"] }],
    publisher: "relay",
    topics: [Tenancy.topic(alertsTopic, { partitions, tier: { by: "segment", values: ["gold"] } })],
    retention: { time: "2 days", megabytes: 500 },
    timeToLive: "1 hour",
    backlog: { megabytes: 10, whenFull: "refuse" },
    clusters: ["standalone"],
    offload: { megabytes: 64, after: "1 day", keep: "1 hour" }
  })
const actions = (plans: ReadonlyArray<ResourcePlan>) => plans.map(({ action }) => action)
const command = (args: ReadonlyArray<string>, env: Record<string, string>) =>
  Effect.callback<readonly [code: number | null, output: string]>((resume) => {
    const bin = fileURLToPath(new URL("../../../bin/millrace.mjs", import.meta.url))
    const child = spawn(process.execPath, [...("Deno" in globalThis ? ["run", "-A"] : []), bin, ...args], {
      env: { ...process.env, ...env }
    })
    let output = ""
    for (const from of [child.stdout, child.stderr]) from.on("data", (data: Buffer) => (output += data.toString()))
    child.on("close", (code) => resume(Effect.succeed([code, output] as const)))
  })

const suite = await needing("pulsar")
suite("tenants on Pulsar", () => {
  it.live(
    "of an application that declares none: the tenant and the namespace of the process are created, as errors advise",
    () =>
      Effect.gen(function* () {
        const endpoints = yield* shared("pulsar")
        const { adminUrl, url } = optionsOf("websocket", endpoints)
        const namespace = `own${process.pid}`
        const env = {
          MILLRACE_PULSAR_URL: url,
          ...(adminUrl !== undefined && { MILLRACE_PULSAR_ADMIN_URL: adminUrl }),
          MILLRACE_PULSAR_TENANT: `${namespace}t`,
          MILLRACE_PULSAR_NAMESPACE: namespace
        }
        const config = ["--config", "test/support/counting.config.ts"]
        const [code, output] = yield* command(["pulsar", "apply", ...config], env)
        assert.strictEqual(code, 0, output)
        assert.include(output, `+ tenant ${namespace}t: create`)
        assert.include(output, `+ namespace ${namespace}t/${namespace}: create`)
        assert.include(output, `+ topic ${namespace}t/${namespace}/counting.receipts: create`)
        assert.deepStrictEqual(yield* command(["pulsar", "check", ...config], env), [0, "4 of 4 as declared\n"])
      })
  )
  it.live("are planned and created, and then match their declaration", () =>
    Effect.gen(function* () {
      const client = yield* admin
      const tenancy = of(`t${process.pid}`)
      const planned = yield* plan(client, tenancy)
      assert.deepStrictEqual(new Set(actions(planned)), new Set(["create"]))
      assert.deepStrictEqual(
        planned.slice(0, 4).map(({ kind, name }) => `${kind} ${name.replace(String(process.pid), "")}`),
        ["tenant t", "namespace t/alerts", "topic t/alerts/alerts.v1", "topic t/alerts/alerts-gold.v1"]
      )
      assert.deepStrictEqual(yield* plan(client, tenancy), planned)
      assert.deepStrictEqual(yield* apply(client, tenancy), planned)
      assert.deepStrictEqual(new Set(actions(yield* plan(client, tenancy))), new Set(["nothing"]))
    })
  )

  it.live("are corrected if their settings were changed, and permissions that are not declared are revoked", () =>
    Effect.gen(function* () {
      const client = yield* admin
      const name = `m${process.pid}`
      const tenancy = of(name)
      yield* apply(client, tenancy)
      yield* Effect.promise(async () => {
        await client.call("POST", `namespaces/${name}/alerts/retention`, {
          retentionTimeInMinutes: 0,
          retentionSizeInMB: 0
        })
        await client.call("POST", `namespaces/${name}/alerts/permissions/stranger`, ["consume"])
        await client.call("DELETE", `persistent/${name}/alerts/alerts-gold.v1`)
      })
      const drift = (yield* plan(client, tenancy)).filter(differs)
      assert.deepStrictEqual(
        drift.map(({ action, name, settings }) => [action, name, settings]),
        [
          [
            "change",
            `${name}/alerts`,
            [
              {
                name: "retention",
                from: { retentionTimeInMinutes: 0, retentionSizeInMB: 0 },
                to: { retentionTimeInMinutes: 2_880, retentionSizeInMB: 500 }
              },
              { name: "permission of stranger", from: ["consume"], to: undefined }
            ]
          ],
          ["create", `${name}/alerts/alerts-gold.v1`, [{ name: "partitions", from: undefined, to: 1 }]]
        ]
      )
      yield* apply(client, tenancy)
      assert.deepStrictEqual((yield* plan(client, tenancy)).filter(differs), [])
    })
  )

  it.live("a topic with another number of partitions is refused, and no change is made", () =>
    Effect.gen(function* () {
      const client = yield* admin
      const name = `r${process.pid}`
      yield* apply(client, of(name, 2))
      yield* Effect.promise(() => client.call("DELETE", `namespaces/${name}/alerts/permissions/relay`))
      const refused = yield* apply(client, of(name, 3))
      assert.include(actions(refused), "refused")
      assert.match(refused.find(({ action }) => action === "refused")!.note!, /has 2 partitions, and 3 are declared/)
      const after = (yield* plan(client, of(name, 2))).filter(differs)
      assert.deepStrictEqual(
        after.map(({ name }) => name),
        [`${name}/alerts`]
      )
    })
  )

  it.live(
    "the command shows the plan, and check exits with 3 until it is applied",
    () =>
      Effect.gen(function* () {
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-tenants-"))),
          (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
        )
        const file = join(directory, "millrace.config.ts")
        const place = (path: string) => JSON.stringify(new URL(`../../../${path}`, import.meta.url).href)
        writeFileSync(
          file,
          `import { Application, Projection, Tenancy } from ${place("src/index.ts")}
         import { alertsTopic, signals } from ${place("projections/signals.ts")}
         const pulsar = Tenancy.make({ tenants: ["c${process.pid}"], topics: [Tenancy.topic(alertsTopic)] })
         export default Application.make({ name: "tenants", projections: [Projection.async(signals)], pulsar })`
        )
        const env = { MILLRACE_PULSAR_ADMIN_URL: (yield* admin).url }
        const run = (doing: string, ...rest: ReadonlyArray<string>) =>
          command(["pulsar", doing, "--config", file, ...rest], env)
        const [code, output] = yield* run("check", "--json")
        assert.strictEqual(code, 3, output)
        assert.isTrue((JSON.parse(output) as { readonly differs: boolean }).differs)
        const [applied, text] = yield* run("apply")
        assert.strictEqual(applied, 0, text)
        assert.include(text, `+ topic c${process.pid}/alerts/alerts.v1: create`)
        assert.match(text, /\n0 of 3 were as declared\n$/)
        assert.deepStrictEqual(yield* run("check"), [0, "3 of 3 as declared\n"])
        // what differs, and only that
        const client = yield* admin
        const permission = `namespaces/c${process.pid}/alerts/permissions/c${process.pid}`
        yield* Effect.promise(() => client.call("DELETE", permission))
        const [differing, difference] = yield* run("check")
        assert.strictEqual(differing, 3)
        assert.match(
          difference,
          /^~ namespace c\d+\/alerts: change\n {4}permission of c\d+: none -> .*\n2 of 3 as declared\n$/
        )
        const [unknown, message] = yield* command(["pulsar", "check", "--config", file], {
          MILLRACE_PULSAR_ADMIN_URL: "",
          MILLRACE_PULSAR_URL: ""
        })
        assert.strictEqual(unknown, 2)
        assert.match(message, /set MILLRACE_PULSAR_ADMIN_URL/)
        const bare = { MILLRACE_PULSAR_ADMIN_URL: "localhost:8080" }
        const [refused, reason] = yield* command(["pulsar", "check", "--config", file], bare)
        assert.strictEqual(refused, 2)
        assert.match(reason, /'localhost:8080' is no URL of Pulsar's admin interface/)
      }).pipe(Effect.scoped),
    60_000
  )
})
