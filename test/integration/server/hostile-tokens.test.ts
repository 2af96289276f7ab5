// Tokens of hostile clients against a server over real HTTP, and an issuer whose keys change, that answers nonsense, or that is away.
import { createServer, type Server as HttpServer } from "node:http"
import type { AddressInfo } from "node:net"
import { exportJWK, exportSPKI, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from "jose"
import { afterAll, beforeAll, expect, test } from "vitest"
import { makeJwtCheck } from "../../../src/server/access/jwt.ts"
import { recordsOf, start, stream, type Server, transfer } from "../../support/http.ts"

type Pair = Awaited<ReturnType<typeof generateKeyPair>>
const issuer = "https://issuer.example"
let server: Server
let keyServer: HttpServer
let good: Pair
let other: Pair
const published: Array<JWK> = []
/** What the issuer answers in place of its keys, and how often it was asked. */
const answers: { text: string | undefined; status: number; asked: number; paths: Array<string> } = {
  text: undefined,
  status: 200,
  asked: 0,
  paths: []
}
const times = { cooldownMs: 100, keptMs: 300, staleMs: 4_000 }
const publish = async (pair: Pair, kid: string | undefined) =>
  published.push({ ...(await exportJWK(pair.publicKey)), ...(kid !== undefined && { kid }), alg: "ES256" })
beforeAll(async () => {
  keyServer = createServer(({ url = "" }, response) => {
    answers.asked++
    answers.paths.push(url)
    response.statusCode = answers.status
    response.end(answers.text ?? JSON.stringify({ keys: published }))
  })
  await new Promise<void>((done) => keyServer.listen(0, "127.0.0.1", done))
  const url = `http://127.0.0.1:${(keyServer.address() as AddressInfo).port}/keys`
  good = await generateKeyPair("ES256", { extractable: true })
  other = await generateKeyPair("ES256", { extractable: true })
  await publish(good, "k1")
  const options = {
    keys: { url },
    algorithms: ["ES256", "RS256"],
    issuer,
    audience: "millrace",
    tenantClaim: "tenant",
    scopeClaim: "scope",
    scopePrefix: "millrace:"
  } as const
  const access = { isRequired: true, jwt: await makeJwtCheck(options, times) }
  server = await start({ access, limits: { recheckMs: 50, eventLoopDelayMs: 0 } })
})
afterAll(async () => {
  await server.stop()
  keyServer.close()
})

const now = () => Math.floor(Date.now() / 1_000)
const claimsOf = (claims: Readonly<Record<string, unknown>> = {}) => ({
  iss: issuer,
  aud: "millrace",
  sub: "app",
  exp: now() + 300,
  tenant: "acme",
  scope: "millrace:read millrace:ingest",
  ...claims
})
const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")
/** A token with any header and claims. */
const signed = (claims: Readonly<Record<string, unknown>> = {}, header: object = {}, key = good.privateKey) =>
  new SignJWT(claimsOf(claims))
    .setProtectedHeader({ alg: "ES256", kid: "k1", ...header } as JWTHeaderParameters)
    .sign(key as never)
const ask = async (token: string, path = "/v1/topics", init: RequestInit = {}) => {
  const headers = { ...(init.headers as Record<string, string>), authorization: `Bearer ${token}` }
  const response = await fetch(`${server.url}${path}`, { ...init, headers })
  const { error } = (await response.json()) as { readonly error?: { readonly code: string; readonly message: string } }
  return { status: response.status, code: error?.code, retryAfter: response.headers.get("retry-after"), error }
}

test("no forged token gets in, whatever its header says, and none makes the server fetch what it names", async () => {
  expect((await ask(await signed())).status).toBe(200)
  const [, body, signature] = (await signed()).split(".") as [string, string, string]
  const jwk = await exportJWK(other.publicKey)
  const pem = await exportSPKI(good.publicKey)
  const theirs = `http://127.0.0.1:${(keyServer.address() as AddressInfo).port}/theirs`
  const hmac = (secret: string) =>
    new SignJWT(claimsOf()).setProtectedHeader({ alg: "HS256", kid: "k1" }).sign(Buffer.from(secret))
  const kids = [
    "../../../../dev/null",
    "' or 1=1 --",
    "k1\u0000",
    "K1",
    "",
    "x".repeat(4_000),
    "__proto__",
    1,
    null,
    ["k1"],
    { a: 1 }
  ]
  const forged: ReadonlyArray<readonly [what: string, token: string]> = [
    ...["none", "None", "nOnE", "NONE"].flatMap((alg) => [
      [`alg ${alg}`, `${part({ alg })}.${body}.`] as const,
      [`alg ${alg} with a signature`, `${part({ alg, kid: "k1" })}.${body}.${signature}`] as const
    ]),
    ["no alg", `${part({ kid: "k1" })}.${body}.${signature}`],
    ["an alg that is no text", `${part({ alg: ["ES256"], kid: "k1" })}.${body}.${signature}`],
    ["the public key as a secret", await hmac(pem)],
    ["the published key as a secret", await hmac(JSON.stringify(published[0]))],
    ["a signature of zeros", `${part({ alg: "ES256", kid: "k1" })}.${body}.${Buffer.alloc(64).toString("base64url")}`],
    ["no signature", `${part({ alg: "ES256", kid: "k1" })}.${body}.`],
    ["another algorithm of the same key", `${part({ alg: "RS256", kid: "k1" })}.${body}.${signature}`],
    ["other claims", `${part({ alg: "ES256", kid: "k1" })}.${part(claimsOf({ tenant: "globex" }))}.${signature}`],
    ["another key", await signed({}, {}, other.privateKey)],
    ["its own key in the header", await signed({}, { jwk }, other.privateKey)],
    ["its own key, by an address", await signed({}, { jku: theirs, x5u: theirs }, other.privateKey)],
    ["its own key, as certificates", await signed({}, { x5c: ["MIIB"] }, other.privateKey)],
    ...(await Promise.all(
      kids.map(
        async (kid) => [`kid ${JSON.stringify(kid).slice(0, 40)}`, await signed({}, { kid }, other.privateKey)] as const
      )
    )),
    [
      "an extension that must be understood",
      `${part({ alg: "ES256", kid: "k1", crit: ["x"], x: 1 })}.${body}.${signature}`
    ],
    [
      "a payload that is no JSON",
      `${part({ alg: "ES256", kid: "k1" })}.${Buffer.from("{").toString("base64url")}.${signature}`
    ],
    ["a header that is no object", `${part("ES256")}.${body}.${signature}`],
    ["five parts, as an encrypted one", `${part({ alg: "dir", enc: "A128GCM" })}.${body}.${body}.${body}.${signature}`],
    ["two parts", `${part({ alg: "ES256" })}.${body}`],
    ["dots alone", ".."],
    ["more than 8,192 characters", "e".repeat(8_193)]
  ]
  const before = answers.paths.length
  for (const [what, token] of forged) {
    const { code, status } = await ask(token)
    expect([status, code], what).toEqual([401, "unauthenticated"])
  }
  expect(answers.paths.slice(before).filter((path) => path !== "/keys")).toEqual([])
})

test("claims that are wrong, missing, or of another form than they have are refused, and times have half a minute", async () => {
  const at = now()
  const refused: ReadonlyArray<Readonly<Record<string, unknown>>> = [
    { exp: undefined },
    { exp: String(at + 300) },
    { exp: at - 45 },
    { exp: null },
    { nbf: at + 60 },
    { nbf: "x" },
    { iss: undefined },
    { iss: [issuer] },
    { iss: `${issuer}/` },
    { aud: undefined },
    { aud: ["billing"] },
    { aud: { millrace: true } },
    { tenant: undefined },
    { tenant: "" },
    { tenant: 1 },
    { tenant: ["acme"] },
    { tenant: "a\u0000b" },
    { tenant: "x".repeat(2_000) },
    { sub: 7 },
    { sub: { a: 1 } },
    { sub: "a\u0000b" },
    { sub: "x".repeat(1_001) }
  ]
  for (const claims of refused) {
    const { code, status } = await ask(await signed(claims))
    expect([status, code], JSON.stringify(claims).slice(0, 60)).toEqual([401, "unauthenticated"])
  }
  for (const claims of [{ exp: at - 15 }, { nbf: at + 15 }, { aud: ["billing", "millrace"] }, { sub: undefined }])
    expect((await ask(await signed(claims))).status, JSON.stringify(claims)).toBe(200)
  for (const scope of [undefined, "", "read", "MILLRACE:READ", "millrace:ingest", { "millrace:read": true }, 1])
    expect((await ask(await signed({ scope }))).status, String(scope)).toBe(403)
  // a tenant never operates, whatever the token says
  const operating = await signed({ scope: "millrace:operate millrace:read" })
  expect((await ask(operating, "/metrics")).status).toBe(403)
})

test("the tenant of a token is that of its events, whatever they say", async () => {
  const post = async (event: object, token: string) =>
    ask(token, "/v1/events", {
      method: "POST",
      body: JSON.stringify(event),
      headers: { "content-type": "application/json" }
    })
  expect((await post(transfer({ tenant: "globex" }), await signed())).status).toBe(422)
  expect((await post(transfer({ tenant: "acme" }), await signed())).status).toBe(202)
  expect((await recordsOf(server.log, "events.raw.v1")).map(({ tenant }) => tenant)).toEqual(["acme"])
})

test("a stream ends after its token has expired", async () => {
  // half a minute is tolerated: it expires in a second
  const token = await signed({ exp: now() - 28 })
  const followed = await stream(`${server.url}/v1/topics/alerts.v1/stream?access_token=${token}`)
  expect(followed.status).toBe(200)
  for (let next = await followed.frame(); ; next = await followed.frame()) {
    if (next?.event !== "end") continue
    expect(JSON.parse(next.data!)).toMatchObject({ reason: "unauthenticated", position: expect.any(String) })
    break
  }
})

test("a key that the issuer adds is found, unknown ones make it be asked now and then alone, and a key that it removed is refused", async () => {
  await new Promise((done) => setTimeout(done, times.keptMs))
  const added = await generateKeyPair("ES256", { extractable: true })
  await publish(added, "k2")
  await expect
    .poll(async () => (await ask(await signed({}, { kid: "k2" }, added.privateKey))).status, { timeout: 10_000 })
    .toBe(200)
  const began = Date.now()
  const before = answers.asked
  const flood = Array.from({ length: 60 }, async (_, i) => ask(await signed({}, { kid: `x${i}` }, other.privateKey)))
  expect(new Set((await Promise.all(flood)).map(({ status }) => status))).toEqual(new Set([401]))
  expect(answers.asked - before).toBeLessThanOrEqual(2 + (Date.now() - began) / times.cooldownMs)
  published.splice(
    published.findIndex(({ kid }) => kid === "k2"),
    1
  )
  await expect
    .poll(async () => (await ask(await signed({}, { kid: "k2" }, added.privateKey))).status, { timeout: 10_000 })
    .toBe(401)
})

test("tokens that name no key are tried with each of the issuer's while it changes them", async () => {
  const next = await generateKeyPair("ES256", { extractable: true })
  await publish(next, "k3")
  const nameless = (pair: Pair) => signed({}, { kid: undefined }, pair.privateKey)
  await expect.poll(async () => (await ask(await nameless(next))).status, { timeout: 10_000 }).toBe(200)
  expect((await ask(await nameless(good))).status).toBe(200)
  expect((await ask(await nameless(other))).status).toBe(401)
  published.pop()
})

test.each([
  [500, "busy"],
  [200, "no JSON"],
  [200, "{}"],
  [200, '{"error":"busy"}'],
  [302, ""]
])(
  "an issuer that answers %i %j is away: its last keys are used for a while, and then the answer is 503 and not 401",
  async (status, text) => {
    const token = await signed()
    await expect.poll(async () => (await ask(token)).status, { timeout: 10_000 }).toBe(200)
    Object.assign(answers, { status, text })
    const until = performance.now() + times.keptMs + 100
    while (performance.now() < until) expect((await ask(token)).status).toBe(200)
    // what cannot be checked now is not refused for good; forged ones are
    expect((await ask(await signed({}, { kid: "later" }, other.privateKey))).status).toBe(503)
    expect((await ask(await signed({}, {}, other.privateKey))).status).toBe(401)
    if (status === 500) {
      await expect.poll(async () => (await ask(token)).status, { timeout: 20_000 }).toBe(503)
      expect(await ask(token)).toMatchObject({ code: "access_unavailable", retryAfter: "1" })
    }
    Object.assign(answers, { status: 200, text: undefined })
    await expect.poll(async () => (await ask(token)).status, { timeout: 10_000 }).toBe(200)
  }
)
