// Authentication and authorization on Pulsar over both transports: tokens, TLS, client certificates, permissions of roles, and the texts of refusals.
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it as vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { security as certificates } from "../../../stack/kafka-security.ts"
import type { PulsarSecurity } from "../../../stack/pulsar-security.ts"
import { securePulsar } from "../../../stack/testing.ts"
import type { Endpoints } from "../../../stack/service.ts"
import { alertsTopic } from "../../../projections/signals.ts"
import { Admin } from "../../../src/pulsar/client/admin.ts"
import { connect } from "../../../src/pulsar/client/cluster.ts"
import * as PulsarFanOut from "../../../src/pulsar/subscription/fanout.ts"
import type { PulsarOptions, PulsarTls } from "../../../src/pulsar/client/options.ts"
import { apply } from "../../../src/pulsar/tenants.ts"
import { Tenancy } from "../../../src/model/tenancy.ts"
import { openProducer, optionsOf, sendAll, type TransportName } from "../../support/pulsar.ts"
import { owning, overTransports } from "../../support/stack.ts"

/** A broker that requires authentication, and certificates of an authority that it does not know. */
class Secured extends Context.Service<
  Secured,
  {
    readonly endpoints: Endpoints
    readonly security: PulsarSecurity
    readonly known: PulsarTls
    readonly stranger: PulsarTls
  }
>()("test/Secured") {}

const pems = ({ ca, cert, key }: { readonly ca: string; readonly cert: string; readonly key: string }): PulsarTls => ({
  ca: readFileSync(ca, "utf8"),
  cert: readFileSync(cert, "utf8"),
  key: readFileSync(key, "utf8")
})
const tenancy = Tenancy.make({
  tenants: ["acme", { name: "globex", role: "client" }, { name: "deaf", actions: ["consume"] }],
  publisher: "relay",
  topics: [Tenancy.topic(alertsTopic)]
})
const layer = Layer.effect(
  Secured,
  Effect.gen(function* () {
    const { endpoints, security } = yield* securePulsar()
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-stranger-"))),
      (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
    )
    yield* apply(new Admin({ ...optionsOf("websocket", endpoints), token: security.token("admin") }), tenancy)
    return { endpoints, security, known: pems(security), stranger: pems(certificates(directory, [])) }
  })
)

/** Options that reach a tenant's topics without credentials. */
const nobody = (transport: TransportName, { endpoints }: Secured["Service"], tenant: string): PulsarOptions => ({
  ...optionsOf(transport, endpoints),
  namespace: "alerts",
  tenant,
  timeoutMs: 20_000
})
/** The same over TLS. */
const safely = (
  transport: TransportName,
  secured: Secured["Service"],
  tenant: string,
  tls: PulsarTls = {}
): PulsarOptions => {
  const { admin: adminUrl, broker, webSocket } = secured.security.tls
  return { ...nobody(transport, secured, tenant), url: transport === "native" ? broker : webSocket, adminUrl, tls }
}
const topic = "alerts.v1"

/** Publishes with the relay's credentials, and receives with a tenant's. */
const roundTrip = Effect.fnUntraced(function* (relay: PulsarOptions, tenant: PulsarOptions, name: string) {
  const consumer = yield* (yield* PulsarFanOut.make(tenant)).subscribe({ topic, name, type: "exclusive" })
  const producer = yield* openProducer(yield* connect(relay), topic, { name, initialSequenceId: -1 })
  yield* sendAll(producer, [{ key: "k", value: `"${name}"`, eventTime: 1, properties: {}, sequenceId: 0 }])
  const messages = yield* consumer.receive(10)
  yield* consumer.acknowledge(messages)
  return messages.map(({ value }) => JSON.parse(value) as unknown)
}, Effect.scoped)

/** How subscribing and producing are refused. With `silent` the admin interface, which would report the reason first, is not known. */
const refusals = Effect.fnUntraced(function* (options: PulsarOptions, silent: boolean) {
  const { adminUrl: _, ...rest } = options
  // the native client keeps trying that long
  const given = silent ? { ...rest, timeoutMs: 3_000 } : options
  const subscribe = PulsarFanOut.make(given).pipe(
    Effect.andThen((fanOut) => fanOut.subscribe({ topic, name: "x", type: "shared" })),
    Effect.scoped,
    Effect.flip
  )
  const produce = connect({ ...given, timeoutMs: 3_000 }).pipe(
    Effect.andThen((cluster) => openProducer(cluster, topic, { name: "x", patienceMs: 0 })),
    Effect.scoped,
    Effect.flip
  )
  return yield* Effect.all([subscribe, produce], { concurrency: 2 })
})

const suite = await owning("pulsar", "java", "maven", "openssl")
suite("a Pulsar that requires authentication", () => {
  vitest.layer(layer, { timeout: "300 seconds", excludeTestServices: true })((it) => {
    overTransports((transport) => {
      it.effect(
        "accepts a token, a token over TLS, and a client certificate",
        () =>
          Effect.gen(function* () {
            const secured = yield* Secured
            const { known, security } = secured
            const relay = (tenant: string) => ({
              ...nobody(transport, secured, tenant),
              token: security.token("relay")
            })
            const acme = { token: security.token("acme") }
            const plain = { ...nobody(transport, secured, "acme"), ...acme }
            assert.deepStrictEqual(yield* roundTrip(relay("acme"), plain, `${transport}-token`), [`${transport}-token`])
            const safe = { ...safely(transport, secured, "acme", { ca: known.ca! }), ...acme }
            assert.deepStrictEqual(yield* roundTrip(relay("acme"), safe, `${transport}-tls`), [`${transport}-tls`])
            const signed = safely(transport, secured, "globex", known)
            const name = `${transport}-mtls`
            assert.deepStrictEqual(yield* roundTrip(relay("globex"), signed, name), [name])
          }),
        180_000
      )

      it.effect(
        "reports each refusal in one line with what to do, with and without the admin interface",
        () =>
          Effect.gen(function* () {
            const secured = yield* Secured
            const { known, security, stranger } = secured
            const plain = (tenant: string) => nobody(transport, secured, tenant)
            const safe = (tls: PulsarTls, tenant = "acme") => safely(transport, secured, tenant, tls)
            const acme = { token: security.token("acme") }
            const wrong = { token: `${acme.token.slice(0, -4)}AAAA` }
            const ca = { ca: known.ca! }
            const trust = /certificate.* not trusted: set MILLRACE_PULSAR_TLS_CA/
            const signIn =
              /refused the token or the certificate: correct MILLRACE_PULSAR_TOKEN, or MILLRACE_PULSAR_TLS_CERT/
            const role = /not allowed: give the role of MILLRACE_PULSAR_TOKEN, or of the client certificate/
            const cases: ReadonlyArray<readonly [string, PulsarOptions, RegExp]> = [
              ["a wrong token", { ...plain("acme"), ...wrong }, signIn],
              ["no token", plain("acme"), signIn],
              ["no token over TLS", safe(ca), signIn],
              ["another tenant's token", { ...plain("globex"), ...acme }, role],
              ["another tenant's certificate", safe(known), role],
              ["an unknown authority", { ...safe({}), ...acme }, trust],
              ["another authority", { ...safe({ ca: stranger.ca! }), ...acme }, trust],
              ["a stranger's certificate", safe({ ...stranger, ...ca }), /correct MILLRACE_PULSAR_TLS_CERT and _KEY/],
              ["a key of another certificate", safe({ ...known, key: stranger.key! }), /_TLS_CERT and _KEY/]
            ]
            const check = Effect.fnUntraced(function* (
              [what, options, advice]: (typeof cases)[number],
              silent: boolean
            ) {
              for (const error of yield* refusals(options, silent)) {
                assert.match(error.message, advice, what)
                assert.notInclude(error.message, "\n", what)
                assert.isTrue("retryable" in error && !error.retryable, `${what}: ${error.message}`)
              }
            })
            const checks = cases.flatMap((one) => [check(one, false), check(one, true)])
            yield* Effect.all(checks, { concurrency: "unbounded" })
          }),
        180_000
      )

      it.effect("reports a port that speaks TLS and a URL that does not, and the reverse", () =>
        Effect.gen(function* () {
          const secured = yield* Secured
          const [plain, safe] = [nobody(transport, secured, "acme"), safely(transport, secured, "acme", secured.known)]
          const mixed = [
            { ...plain, url: safe.url.replace(/^pulsar\+ssl/, "pulsar").replace(/^wss/, "ws") },
            { ...safe, url: plain.url.replace(/^pulsar/, "pulsar+ssl").replace(/^ws/, "wss") }
          ]
          const errors = yield* Effect.forEach(mixed, (one) => refusals(one, true), { concurrency: 2 })
          for (const { message } of errors.flat())
            assert.match(message, /pulsar\+ssl:\/\/ and wss:\/\/ are for ports with TLS/)
        })
      )

      it.effect("a role without the permission to produce is refused with that reason", () =>
        Effect.gen(function* () {
          const secured = yield* Secured
          const token = secured.security.token("deaf")
          const cluster = yield* connect({ ...nobody(transport, secured, "deaf"), token })
          yield* PulsarFanOut.fromCluster(cluster).subscribe({ topic, name: "may", type: "exclusive" })
          const error = yield* Effect.flip(openProducer(cluster, topic, { name: "x" }))
          assert.strictEqual(error.kind, "forbidden", error.message)
          assert.match(error.message, /give the role of MILLRACE_PULSAR_TOKEN/)
        }).pipe(Effect.scoped)
      )

      it.effect("a broker that does not answer is a retryable error with advice", () =>
        Effect.gen(function* () {
          const url = transport === "native" ? "pulsar://127.0.0.1:1" : "ws://127.0.0.1:1"
          for (const error of yield* refusals({ ...optionsOf(transport, {}), url }, true)) {
            assert.isTrue("retryable" in error && error.retryable, error.message)
            assert.match(error.message, /does not answer: start it, or correct MILLRACE_PULSAR_URL/)
            assert.notMatch(error.message, /(ECONNREFUSED).*\1/)
          }
        })
      )
    })
  })

  vitest.live("a native client that is not installed is reported with both remedies", () =>
    Effect.gen(function* () {
      const options = { url: "pulsar://127.0.0.1:1", client: "no-such-client" }
      const error = yield* Effect.flip(Effect.scoped(PulsarFanOut.make(options)))
      assert.match(error.message, /npm install pulsar-client/)
      assert.match(error.message, /MILLRACE_PULSAR_URL=ws:\/\//)
    })
  )
})
