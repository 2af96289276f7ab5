// A client of Pulsar's admin interface over HTTP.
import { request as http } from "node:http"
import { request as https } from "node:https"
import { failureOf, failureOfStatus, isMissing, PulsarFailure } from "./errors.ts"
import type { MessageId } from "./message-id.ts"
import { adminUrlOf, defaults, type PulsarOptions } from "./options.ts"

/** A response with its body as text. */
interface Answer {
  readonly status: number
  readonly body: string
  /** The URL that a redirect leads to. */
  readonly location: string | undefined
}
/** The admin interface's description of a subscription. */
export interface SubscriptionStats {
  /** `Exclusive`, `Shared`, `Failover` or `Key_Shared`; undefined while it has no consumer. */
  readonly type?: string
  /** Entries of the topic that it has not acknowledged. */
  readonly msgBacklog?: number
  readonly consumers?: ReadonlyArray<{ readonly consumerName?: string; readonly availablePermits?: number }>
}

/** A topic as a path of the admin interface: `persistent/a/b/c` for `persistent://a/b/c`, each segment escaped. */
export const pathOf = (topic: string) => {
  const [domain, rest] = topic.split("://")
  return [domain!, ...rest!.split("/")].map((part) => encodeURIComponent(part)).join("/")
}

/** Waits for an answer about a topic. Undefined if the topic, or its namespace, does not exist. */
export const orUndefined = async <A>(answer: Promise<A>): Promise<A | undefined> =>
  answer.catch((cause: unknown) => {
    if (cause instanceof PulsarFailure && isMissing(cause)) return undefined
    throw cause
  })

/** One cluster's admin interface, with the credentials of the options. Every call rejects with a `PulsarFailure`. */
export class Admin {
  readonly url: string
  private readonly options: PulsarOptions

  constructor(options: PulsarOptions) {
    const url = adminUrlOf(options)
    if (url === undefined)
      throw new PulsarFailure(
        "adminUnknown",
        false,
        "the URL of the admin interface is not known: set MILLRACE_PULSAR_ADMIN_URL"
      )
    this.url = url
    this.options = options
  }

  private exchange(method: string, url: string, body: unknown): Promise<Answer> {
    const { timeoutMs, tls, token } = this.options
    const signal = AbortSignal.timeout(timeoutMs ?? defaults.timeoutMs)
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
    if (body !== undefined) headers["content-type"] = "application/json"
    return new Promise((resolve, reject) => {
      const send = url.startsWith("https") ? https : http
      const request = send(url, { method, headers, signal, ...tls }, (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.on("error", reject)
        response.on("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            body: Buffer.concat(chunks).toString("utf8"),
            location: response.headers.location
          })
        )
      })
      request.on("error", (cause) => reject(signal.aborted ? new Error("TimeOut", { cause }) : cause))
      request.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }
  /** Sends a request. Resolves with the response's JSON, or with undefined if the body is empty or the status is one of `also`. */
  async call(method: string, path: string, body?: unknown, also: ReadonlyArray<number> = []): Promise<unknown> {
    const where = `${method} ${path} at ${this.url}`
    const ask = (url: string) =>
      this.exchange(method, url, body).catch((cause: unknown) => {
        throw failureOf(cause, where)
      })
    let answer = await ask(`${this.url}/admin/v2/${path}`)
    // another broker owns the topic
    for (let i = 0; i < 5 && answer.status === 307 && answer.location !== undefined; i++)
      answer = await ask(answer.location)
    if (answer.status >= 200 && answer.status < 300)
      return answer.body === "" ? undefined : (JSON.parse(answer.body) as unknown)
    if (also.includes(answer.status)) return undefined
    throw failureOfStatus(answer.status, answer.body, where)
  }

  /**
   * How many partitions a topic has; 0 if it is not partitioned. Rejects with a failure of the kind `missing`, `namespaceMissing` or `notFound` if it
   * does not exist.
   */
  async partitions(topic: string): Promise<number> {
    const found = await this.call("GET", `${pathOf(topic)}/partitions`)
    return (found as { readonly partitions: number }).partitions
  }
  /** Creates a topic if it does not exist. With 1 it is not partitioned. */
  async create(topic: string, partitions = 1): Promise<void> {
    if (partitions === 1) await this.call("PUT", pathOf(topic), {}, [409])
    else await this.call("PUT", `${pathOf(topic)}/partitions`, partitions, [409])
  }
  /** The id of the last message of a topic that is not partitioned, or of one partition. Undefined if it has no messages or does not exist. */
  async lastMessageId(topic: string): Promise<MessageId | undefined> {
    const found = (await orUndefined(this.call("GET", `${pathOf(topic)}/lastMessageId`))) as
      | Record<string, number>
      | undefined
    if (found === undefined) return undefined
    const { batchIndex = -1, batchSize = 1, entryId = -1, ledgerId = -1 } = found
    return entryId < 0 ? undefined : { ledger: ledgerId, entry: entryId, batch: batchIndex, batchSize }
  }
  /** A subscription of a topic that is not partitioned, or of one partition. Undefined if it does not exist. */
  async subscription(topic: string, name: string): Promise<SubscriptionStats | undefined> {
    const stats = await this.call("GET", `${pathOf(topic)}/stats`, undefined, [404])
    return (stats as { readonly subscriptions?: Record<string, SubscriptionStats> } | undefined)?.subscriptions?.[name]
  }
  /** Sends a request about a subscription. `PUT` creates it after the last message, and succeeds also if it exists by now. */
  async onSubscription(method: string, topic: string, name: string, path: string, body?: unknown): Promise<void> {
    const where = `${pathOf(topic)}/subscription/${encodeURIComponent(name)}${path}`
    await this.call(method, where, body, method === "PUT" ? [409] : [])
  }
  /** Removes a subscription and disconnects its consumers. Succeeds also if it does not exist. */
  async unsubscribe(topic: string, name: string): Promise<void> {
    await this.call("DELETE", `${pathOf(topic)}/subscription/${encodeURIComponent(name)}?force=true`, undefined, [404])
  }
}
