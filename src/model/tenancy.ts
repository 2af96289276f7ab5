// Tenancy on Pulsar as users declare it: the tenants, the topics that each of them has, and the policies of their namespaces. Pure.
import type * as Duration from "effect/Duration"
import { assertOptions } from "./declaration.ts"
import { checkedChoice, checkedCount, checkedDuration, invalidOption, type DurationBounds } from "./options.ts"
import type { StoredSource } from "./topic.ts"

/** What a role may do in its tenant's namespace. Subscriptions with dead letters need `produce` as well. */
export type TenantAction = "consume" | "produce"
/** A tenant, which has access to its own namespace only. */
export interface Tenant {
  /** The name of the tenant on Pulsar. */
  readonly name: string
  /** The role that may use the namespace: the subject of its token, or the name in its certificate. */
  readonly role: string
  /** What the role may do in the namespace. */
  readonly actions: ReadonlyArray<TenantAction>
}
/** A topic that every tenant has. */
export interface TenantTopic {
  /** The name of the topic. */
  readonly name: string
  /** 1: the topic is not partitioned. */
  readonly partitions: number
  /** Values whose field `by` has one of the texts `values` go to a topic of their own, one for each text. */
  readonly tier: { readonly by: string; readonly values: ReadonlyArray<string> } | undefined
  /** The relay may send messages of the topic in batches. */
  readonly batching: boolean
}
/** The policies of the tenants' namespaces. What is undefined is left as the cluster has it, and is not compared. */
export interface NamespacePolicies {
  /** How long messages are kept that all subscriptions acknowledged, for new subscriptions and replays. Milliseconds; Infinity: forever. */
  readonly retentionMs: number
  /** How many megabytes of acknowledged messages each topic keeps; the oldest are deleted first. Infinity: no limit. */
  readonly retentionMegabytes: number
  /** Messages older than this count as acknowledged. Milliseconds. */
  readonly timeToLiveMs: number | undefined
  /**
   * How many megabytes each topic may have unacknowledged, and what happens at that limit: producers wait (`hold`), producers fail (`refuse`),
   * or the oldest messages are dropped (`evict`).
   */
  readonly backlog: { readonly megabytes: number; readonly whenFull: "hold" | "refuse" | "evict" } | undefined
  /** The broker drops duplicates. The relay needs it to publish exactly once. */
  readonly deduplication: boolean
  /** The clusters that messages are replicated to. */
  readonly clusters: ReadonlyArray<string> | undefined
  /** When ledgers are moved to the brokers' tiered storage, and how long they stay on bookies as well. */
  readonly offload:
    | {
        readonly megabytes: number | undefined
        readonly afterMs: number | undefined
        readonly keepMs: number | undefined
      }
    | undefined
}
/** The tenants of an application on Pulsar, their topics and policies. */
export interface Tenancy {
  /** The namespace of every tenant. */
  readonly namespace: string
  /** The tenants, with their roles. */
  readonly tenants: ReadonlyArray<Tenant>
  /** The role of the relay. It may produce in every namespace, and consume, because it reads the end of a topic before it sends. */
  readonly publisher: string | undefined
  /** The topics that every tenant has. */
  readonly topics: ReadonlyArray<TenantTopic>
  /** The policies of every tenant's namespace. */
  readonly policies: NamespacePolicies
  /** What happens to messages of tenants that are not declared; see `Tenancy.make`. */
  readonly undeclared: "park" | "wait"
}

/** The options of `Tenancy.topic`. */
export interface TopicOptions<V> {
  /** Default 1. The number of an existing topic does not change. */
  readonly partitions?: number
  /**
   * Divides values by a text field: with `{ by: "severity", values: ["high"] }`, values of `alerts.v1` whose severity is `high` are in
   * `alerts-high.v1`. All others are in the topic itself.
   */
  readonly tier?: { readonly by: keyof V & string; readonly values: ReadonlyArray<string> }
  /**
   * The relay sends messages in batches when many of them wait, which is less work for brokers and consumers. A batch goes to the consumer of
   * its first key as a whole, so `keyShared` subscriptions of the topic do not keep the order of keys. Default false.
   */
  readonly batching?: boolean
}
/** The options of `Tenancy.make`. */
export interface TenancyOptions {
  /** A name, or a name with its role (default: the tenant's name) and actions (default: both). */
  readonly tenants: ReadonlyArray<
    string | { readonly name: string; readonly role?: string; readonly actions?: ReadonlyArray<TenantAction> }
  >
  /** The topics that every tenant has, as `Tenancy.topic` declares them. */
  readonly topics: ReadonlyArray<TenantTopic>
  /** The namespace of every tenant. Default `alerts`. */
  readonly namespace?: string
  /** The role of the relay, which needs access to every namespace. Default: none gets it. */
  readonly publisher?: string
  /**
   * Default: 7 days, of any size. Without retention a topic keeps nothing for later subscriptions, and dead letters without a subscription are
   * lost.
   */
  readonly retention?: { readonly time?: Duration.Input; readonly megabytes?: number }
  /** Messages older than this count as acknowledged. Default: as the cluster has it. */
  readonly timeToLive?: Duration.Input
  /** How many megabytes may wait unacknowledged in a topic, and what happens at that limit. Default: as the cluster has it. */
  readonly backlog?: NamespacePolicies["backlog"]
  /** Default true. */
  readonly deduplication?: boolean
  /** The clusters that messages are replicated to. Default: as the cluster has it. */
  readonly clusters?: ReadonlyArray<string>
  /**
   * What happens to messages of a tenant that is not in `tenants` and that the relay cannot write to on Pulsar, once they fill the buffer of
   * their stream. `park` (default): they become dead letters of the relay, and the stream goes on. `wait`: the stream halts until the tenant
   * exists.
   */
  readonly undeclared?: "park" | "wait"
  /** When ledgers are moved to tiered storage, and how long they stay on bookies as well. Default: as the cluster has it. */
  readonly offload?: { readonly megabytes?: number; readonly after?: Duration.Input; readonly keep?: Duration.Input }
}

const defaultRetentionMs = 7 * 24 * 3_600_000
const plain = /^[\w.=:-]{1,128}$/
const assertName = (what: string, name: string) => {
  if (!plain.test(name))
    throw new Error(
      `${what} ${JSON.stringify(name)}: the name is not allowed; use at most 128 letters, digits and _ . = : -`
    )
}
const assertDistinct = (what: string, names: ReadonlyArray<string>) => {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw new Error(`${what} ${twice} is declared twice; declare it once`)
}
const maybe = (what: string, input: Duration.Input | undefined, bounds?: DurationBounds) =>
  input === undefined ? undefined : checkedDuration(`tenancy: ${what}`, input, bounds)
const megabytesOf = (what: string, megabytes: number): number => {
  if (typeof megabytes === "number" && megabytes >= 0 && megabytes <= Number.MAX_SAFE_INTEGER / 2 ** 20)
    return megabytes
  throw invalidOption(`tenancy: ${what}`, megabytes, "it must be a number of megabytes, at least 0")
}
const backlogOf = ({ megabytes, whenFull }: NonNullable<NamespacePolicies["backlog"]>) => ({
  megabytes: megabytesOf("backlog.megabytes", megabytes),
  whenFull: checkedChoice("tenancy: backlog.whenFull", whenFull, ["hold", "refuse", "evict"])
})

/** The topic of a tier: `alerts-high.v1` for topic `alerts.v1` and tier `high`. */
const tierTopic = (name: string, tier: string): string => {
  const at = /\.v\d+$/.exec(name)?.index ?? name.length
  return `${name.slice(0, at)}-${tier}${name.slice(at)}`
}

/** Declares the tenants of an application on Pulsar, and answers questions about them. */
export const Tenancy = {
  /**
   * Declares the tenants, their topics and policies. Throws if a name is not allowed, or is declared twice.
   *
   * ```ts
   * Tenancy.make({ tenants: ["acme", "globex"], topics: [Tenancy.topic(Alerts, { tier: { by: "severity", values: ["high"] } })] })
   * ```
   */
  make: (options: TenancyOptions): Tenancy => {
    const {
      backlog,
      clusters,
      deduplication = true,
      namespace = "alerts",
      offload,
      publisher,
      retention,
      topics,
      undeclared = "park"
    } = options
    const known = [
      "backlog",
      "clusters",
      "deduplication",
      "namespace",
      "offload",
      "publisher",
      "retention",
      "tenants",
      "timeToLive",
      "topics",
      "undeclared"
    ]
    assertOptions("tenancy", options, known, ["tenants"])
    const tenants = options.tenants.map((tenant): Tenant => {
      const given = typeof tenant === "string" ? { name: tenant } : tenant
      return { role: given.name, actions: ["consume", "produce"], ...given }
    })
    for (const { name, role } of tenants) {
      assertName("tenant", name)
      assertName("role", role)
    }
    assertName("namespace", namespace)
    assertDistinct(
      "tenant",
      tenants.map(({ name }) => name)
    )
    assertDistinct("topic", topics.flatMap(Tenancy.topicsOf))
    return {
      namespace,
      tenants,
      publisher,
      topics,
      undeclared,
      policies: {
        retentionMs:
          maybe("retention.time", retention?.time, { orInfinite: true }) ??
          (retention?.megabytes === undefined ? defaultRetentionMs : Infinity),
        retentionMegabytes:
          retention?.megabytes === undefined || retention.megabytes === Infinity
            ? Infinity
            : megabytesOf("retention.megabytes", retention.megabytes),
        timeToLiveMs: maybe("timeToLive", options.timeToLive, { least: 1 }),
        backlog: backlog && backlogOf(backlog),
        deduplication,
        clusters,
        offload: offload && {
          megabytes: offload.megabytes === undefined ? undefined : megabytesOf("offload.megabytes", offload.megabytes),
          afterMs: maybe("offload.after", offload.after),
          keepMs: maybe("offload.keep", offload.keep)
        }
      }
    }
  },
  /** Declares a topic that every tenant has, which may be divided by tier: a derived topic, or the events of an aggregate. */
  topic: <V>(
    topic: StoredSource<string, V, "topic"> | StoredSource<string, V, "aggregate">,
    { batching = false, partitions = 1, tier }: TopicOptions<V> = {}
  ): TenantTopic => {
    checkedCount(`topic ${topic.name}: partitions`, partitions, { least: 1 })
    for (const value of tier?.values ?? []) assertName(`topic ${topic.name}, tier`, value)
    return { name: topic.name, partitions, tier, batching }
  },
  /** The names of a topic on Pulsar: its own, and one for each tier. */
  topicsOf: ({ name, tier }: TenantTopic): ReadonlyArray<string> => [
    name,
    ...(tier?.values ?? []).map((value) => tierTopic(name, value))
  ],
  /** Whether messages of a tenant are parked if they cannot be published: it is not declared, and `undeclared` is `park`. */
  parks: ({ tenants, undeclared }: Tenancy, tenant: string): boolean =>
    undeclared === "park" && !tenants.some(({ name }) => name === tenant),
  /** The name of the topic on Pulsar that a value goes to; `value` is what the topic encodes. */
  topicFor: ({ name, tier }: TenantTopic, value: Readonly<Record<string, unknown>>): string => {
    const found = tier === undefined ? undefined : value[tier.by]
    return typeof found === "string" && tier?.values.includes(found) === true ? tierTopic(name, found) : name
  }
}
