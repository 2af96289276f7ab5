// What is said if an address is that of another service, or one side speaks TLS and the other does not.
import { createServer as createHttpServer, type Server } from "node:http"
import { createServer, type AddressInfo } from "node:net"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, expect, test } from "vitest"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import { connect } from "../../../src/postgres/client/client.ts"
import { splitTls } from "../../../src/postgres/client/socket.ts"

const http: Server = createHttpServer((_request, response) => void response.end("hello"))
/** Answers as a server that expects TLS: with an alert, and closes. */
const tls = createServer((socket) => {
  socket.on("error", () => {}).once("data", () => socket.end(Buffer.from([0x15, 3, 3, 0, 2, 2, 50])))
})
const portOf = (server: Pick<Server, "address">) => (server.address() as AddressInfo).port
beforeAll(async () => {
  for (const server of [http, tls]) await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done))
})
afterAll(() => {
  for (const server of [http, tls]) server.close()
})

const messageOf = <A>(run: Effect.Effect<A, { readonly message: string }, never>): Promise<string> =>
  Effect.runPromise(Effect.match(run, { onFailure: ({ message }) => message, onSuccess: () => "it succeeded" }))
const database = (port: number) =>
  messageOf(Effect.scoped(connect(`postgres://user:secret@127.0.0.1:${port}/database`)))
const brokers = (port: number, tls: boolean) =>
  messageOf(
    Effect.scoped(
      Effect.flatMap(KafkaLog.make({ brokers: [`127.0.0.1:${port}`], tls, connectMs: 2_000 }), (log) => log.bounds("t"))
    )
  )

test("a database's URL that names a server of HTTP, or of TLS, fails at once and says so", async () => {
  expect(await database(portOf(http))).toBe(
    `connect: 127.0.0.1:${portOf(http)} speaks HTTP, not PostgreSQL's protocol. try: correct the host and port in the database's URL`
  )
  expect(await database(portOf(tls))).toBe(
    `connect: 127.0.0.1:${portOf(tls)} expects TLS from the first byte, which PostgreSQL does not. try: correct the host and port in the database's URL`
  )
})
test("brokers that close the connection: the error names TLS on one side, or another service", async () => {
  for (const server of [http, tls])
    expect(await brokers(portOf(server), false)).toContain(
      `127.0.0.1:${portOf(server)} closed the connection; if it always does, it speaks TLS (set MILLRACE_KAFKA_TLS=true) or is not a broker of Kafka`
    )
  expect(await brokers(portOf(http), true)).toContain("MILLRACE_KAFKA_TLS")
})
test("a mode of TLS that does not exist is refused, instead of going on without TLS", () => {
  expect(() => splitTls("postgres://a@b/c?sslmode=requird")).toThrow(
    "sslmode is 'requird' in the database's URL; it must be disable, allow, prefer, require, verify-ca, verify-full"
  )
  expect(splitTls("postgres://a@b/c?sslmode=allow").tls?.mode).toBe("prefer")
})
