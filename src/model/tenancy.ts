// Who gets an application's derived topics on Pulsar: tenants, their topics by tier, and what holds for them. It connects to nothing.
import type * as Duration from "effect/Duration"
import { millis } from "./fields.ts"
import type { Topic } from "./topic.ts"

/** What a role may do in its tenant's namespace. Dead letters of its subscriptions are produced. */
export type TenantAction = "consume" | "produce"
/** A tenant: it sees its own namespace and no other's. */
export interface Tenant {
  readonly name: string
  /** The role (the subject of its token, the name of its certificate) that may use the namespace. */
  readonly role: string
  readonly actions: ReadonlyArray<TenantAction>
}
/** A topic that every tenant has. */
export interface TenantTopic {
  readonly name: string
  /** 1: it is not partitioned. */
  readonly partitions: number
  /** Values with one of these texts in that field go to a topic of their own. */
  readonly tier: { readonly by: string; readonly values: ReadonlyArray<string> } | undefined
  readonly batching: boolean
}
/** What holds for the namespaces. Undefined: as the cluster has it, and not looked at. */
export interface NamespacePolicies {
  /** How long messages are kept that everyone acknowledged, for new subscriptions and replays; in milliseconds, Infinity for good. */
  readonly retentionMs: number
  /** The same by size, in megabytes, for each topic; Infinity: no bound. The oldest go first. */
  readonly retentionMegabytes: number
  /** Messages older than this count as acknowledged, in milliseconds. */
  readonly timeToLiveMs: number | undefined
  /** How much may be unacknowledged for each topic, and what happens then: producers wait or are refused, or the oldest are dropped. */
  readonly backlog: { readonly megabytes: number; readonly whenFull: "hold" | "refuse" | "evict" } | undefined
  /** The relay's exactly-once publishing rests on it. */
  readonly deduplication: boolean
  /** Clusters that have every message. */
  readonly clusters: ReadonlyArray<string> | undefined
  /** When ledgers go to the tiered storage that the brokers are configured for, and how long they stay on bookies as well. */
  readonly offload:
    | {
        readonly megabytes: number | undefined
        readonly afterMs: number | undefined
        readonly keepMs: number | undefined
      }
    | undefined
}
/** What the tenants of an application have on Pulsar. */
export interface Tenancy {
  readonly namespace: string
  readonly tenants: ReadonlyArray<Tenant>
  /** The role of the relay: it may produce in every namespace, and consume, for it reads what is there before it sends. */
  readonly publisher: string | undefined
  readonly topics: ReadonlyArray<TenantTopic>
  readonly policies: NamespacePolicies
  /** As in `make`. */
  readonly undeclared: "park" | "wait"
}

interface TopicOptions<V> {
  /** Default 1. A topic keeps its number for good. */
  readonly partitions?: number
  /** Puts values apart by a field of text: with `severity` and `high` of `alerts.v1` they are in `alerts-high.v1`. Others stay in the plain topic. */
  readonly tier?: { readonly by: keyof V & string; readonly values: ReadonlyArray<string> }
  /**
   * The relay sends batches where many messages wait: less work for brokers, and for consumers half of it. A batch goes whole to the consumer of its
   * first key, so `keyShared` subscriptions of the topic do not keep keys in order. Default false.
   */
  readonly batching?: boolean
}
interface TenancyOptions {
  /** By name; the role has the tenant's name unless it is said. */
  readonly tenants: ReadonlyArray<
    string | { readonly name: string; readonly role?: string; readonly actions?: ReadonlyArray<TenantAction> }
  >
  readonly topics: ReadonlyArray<TenantTopic>
  /** Default `alerts`. */
  readonly namespace?: string
  readonly publisher?: string
  /** Default 7 days, whatever their size. Without retention a topic keeps nothing for subscriptions that come later, and dead letters are lost. */
  readonly retention?: { readonly time?: Duration.Input; readonly megabytes?: number }
  readonly timeToLive?: Duration.Input
  readonly backlog?: NamespacePolicies["backlog"]
  /** Default true. */
  readonly deduplication?: boolean
  readonly clusters?: ReadonlyArray<string>
  /**
   * What becomes of messages for a tenant that is not in `tenants`, and that Pulsar does not have, or does not let the relay write to, once they fill
   * what may wait of a stream: they become dead letters of the relay and the stream goes on, or it halts until the tenant is there. Default `park`.
   */
  readonly undeclared?: "park" | "wait"
  readonly offload?: { readonly megabytes?: number; readonly after?: Duration.Input; readonly keep?: Duration.Input }
}

const defaultRetentionMs = 7 * 24 * 3_600_000
const plain = /^[\w.=:-]{1,128}$/
const assertName = (what: string, name: string) => {
  if (!plain.test(name))
    throw new Error(`${what} ${JSON.stringify(name)}: Pulsar takes letters, digits and _ . = : -, 128 at most`)
}
const assertDistinct = (what: string, names: ReadonlyArray<string>) => {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw new Error(`${what} ${twice} is named twice; name it once`)
}
const maybe = (input: Duration.Input | undefined) => (input === undefined ? undefined : millis(input))

/** The topic of a tier: `alerts.v1` and `high` are `alerts-high.v1`. */
const tierTopic = (name: string, tier: string): string => {
  const at = /\.v\d+$/.exec(name)?.index ?? name.length
  return `${name.slice(0, at)}-${tier}${name.slice(at)}`
}

export const Tenancy = {
  /** Says who has what. Throws where a name is none, or is there twice. */
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
        retentionMs: maybe(retention?.time) ?? (retention?.megabytes === undefined ? defaultRetentionMs : Infinity),
        retentionMegabytes: retention?.megabytes ?? Infinity,
        timeToLiveMs: maybe(options.timeToLive),
        backlog,
        deduplication,
        clusters,
        offload: offload && {
          megabytes: offload.megabytes,
          afterMs: maybe(offload.after),
          keepMs: maybe(offload.keep)
        }
      }
    }
  },
  /** A topic that every tenant has, perhaps parted by tier. */
  topic: <V>(
    topic: Topic<string, V>,
    { batching = false, partitions = 1, tier }: TopicOptions<V> = {}
  ): TenantTopic => {
    if (!(Number.isInteger(partitions) && partitions >= 1))
      throw new Error(`topic ${topic.name}: partitions is ${partitions}, it must be a whole number from 1`)
    for (const value of tier?.values ?? []) assertName(`topic ${topic.name}, tier`, value)
    return { name: topic.name, partitions, tier, batching }
  },
  /** The names that a topic has on Pulsar: its own, and one a tier. */
  topicsOf: ({ name, tier }: TenantTopic): ReadonlyArray<string> => [
    name,
    ...(tier?.values ?? []).map((value) => tierTopic(name, value))
  ],
  /** Whether a tenant's messages are parked where they cannot be brought to it, and fill what may wait. */
  parks: ({ tenants, undeclared }: Tenancy, tenant: string): boolean =>
    undeclared === "park" && !tenants.some(({ name }) => name === tenant),
  /** Where a value goes. Pass what the topic encodes. */
  topicFor: ({ name, tier }: TenantTopic, value: Readonly<Record<string, unknown>>): string => {
    const found = tier === undefined ? undefined : value[tier.by]
    return typeof found === "string" && tier?.values.includes(found) === true ? tierTopic(name, found) : name
  }
}
