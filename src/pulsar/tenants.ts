// Plans and makes the changes that give Pulsar's tenants, namespaces and topics the settings that an application declares.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Tenancy, type NamespacePolicies } from "../model/tenancy.ts"
import { type Admin, orUndefined } from "./client/admin.ts"
import { failureOf } from "./client/errors.ts"

/** A setting that differs from what is declared. */
export interface SettingChange {
  readonly name: string
  /** Undefined if it is not set, or the tenant, namespace or topic does not exist. */
  readonly from: unknown
  /** Undefined if it is to be removed. */
  readonly to: unknown
}
/** What is to be done about one tenant, namespace or topic. */
export interface ResourcePlan {
  readonly kind: "tenant" | "namespace" | "topic"
  readonly name: string
  readonly action: "create" | "change" | "nothing" | "refused"
  readonly settings: ReadonlyArray<SettingChange>
  /** Why the change is refused; undefined if it is not. */
  readonly note: string | undefined
}
/** A plan for one resource, and the function that carries it out. */
interface Step {
  readonly plan: ResourcePlan
  readonly run: () => Promise<void>
}

/** The admin interface failed, or refused a request. */
export class TenancyError extends Schema.TaggedError<TenancyError>()("TenancyError", {
  operation: Schema.Literals(["plan", "apply"]),
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `pulsar: ${this.operation} failed: ${this.reason}`
  }
}

/** A namespace's policies, as the admin interface returns them. */
interface NamespaceState {
  readonly retention_policies?: { readonly retentionTimeInMinutes: number; readonly retentionSizeInMB: number }
  readonly message_ttl_in_seconds?: number
  readonly backlog_quota_map?: Readonly<
    Record<string, { readonly limit?: number; readonly limitSize?: number; readonly policy?: string }>
  >
  readonly deduplicationEnabled?: boolean
  readonly replication_clusters?: ReadonlyArray<string>
  readonly inactive_topic_policies?: { readonly deleteWhileInactive?: boolean }
  readonly offload_policies?: {
    readonly managedLedgerOffloadThresholdInBytes?: number
    readonly managedLedgerOffloadThresholdInSeconds?: number
    readonly managedLedgerOffloadDeletionLagInMillis?: number
  }
  readonly auth_policies?: { readonly namespace_auth?: Readonly<Record<string, ReadonlyArray<string>>> }
}
/** A setting: its present value, the declared one, and the request that changes it. */
interface NamespaceSetting {
  readonly name: string
  readonly from: unknown
  readonly to: unknown
  readonly request: readonly [method: string, path: string, body?: unknown]
}

const quotaPolicies = {
  hold: "producer_request_hold",
  refuse: "producer_exception",
  evict: "consumer_backlog_eviction"
} as const
const keptTopics = {
  inactiveTopicDeleteMode: "delete_when_no_subscriptions",
  maxInactiveDurationSeconds: 60,
  deleteWhileInactive: false
}
const bytes = (megabytes: number) => Math.round(megabytes * 1024 * 1024)
/** Pulsar writes -1 for no limit. */
const bounded = (value: number) => (value === Infinity ? -1 : Math.ceil(value))

const policySettings = (state: NamespaceState, policies: NamespacePolicies): ReadonlyArray<NamespaceSetting> => {
  const { backlog, clusters, deduplication, offload, retentionMegabytes, retentionMs, timeToLiveMs } = policies
  const retention = {
    retentionTimeInMinutes: bounded(retentionMs / 60_000),
    retentionSizeInMB: bounded(retentionMegabytes)
  }
  const settings: Array<NamespaceSetting> = [
    { name: "retention", from: state.retention_policies, to: retention, request: ["POST", "retention", retention] },
    {
      name: "deduplication",
      from: state.deduplicationEnabled,
      to: deduplication,
      request: ["POST", "deduplication", deduplication]
    },
    // otherwise a declared topic without messages is deleted within a minute
    {
      name: "deleteInactiveTopics",
      from: state.inactive_topic_policies?.deleteWhileInactive,
      to: false,
      request: ["POST", "inactiveTopicPolicies", keptTopics]
    }
  ]
  const number = (name: string, from: number | undefined, to: number | undefined, method: string, path: string) => {
    if (to !== undefined) settings.push({ name, from, to, request: [method, path, to] })
  }
  number(
    "messageTTL",
    state.message_ttl_in_seconds,
    timeToLiveMs === undefined ? undefined : Math.ceil(timeToLiveMs / 1_000),
    "POST",
    "messageTTL"
  )
  if (backlog !== undefined) {
    const quota = state.backlog_quota_map?.["destination_storage"]
    const to = { limitSize: bytes(backlog.megabytes), policy: quotaPolicies[backlog.whenFull] }
    settings.push({
      name: "backlogQuota",
      from: quota && { limitSize: quota.limitSize ?? quota.limit, policy: quota.policy },
      to,
      request: ["POST", "backlogQuota?backlogQuotaType=destination_storage", to]
    })
  }
  if (clusters !== undefined) {
    const to = clusters.toSorted()
    const from = state.replication_clusters?.toSorted()
    settings.push({ name: "replication", from, to, request: ["POST", "replication", to] })
  }
  const { afterMs, keepMs, megabytes } = offload ?? {}
  const now = state.offload_policies ?? {}
  const threshold = megabytes === undefined ? undefined : bytes(megabytes)
  const seconds = afterMs === undefined ? undefined : Math.ceil(afterMs / 1_000)
  number("offloadThreshold", now.managedLedgerOffloadThresholdInBytes, threshold, "PUT", "offloadThreshold")
  number(
    "offloadThresholdInSeconds",
    now.managedLedgerOffloadThresholdInSeconds,
    seconds,
    "PUT",
    "offloadThresholdInSeconds"
  )
  number("offloadDeletionLagMs", now.managedLedgerOffloadDeletionLagInMillis, keepMs, "PUT", "offloadDeletionLagMs")
  return settings
}

/** The permissions of each role. Roles that are not declared lose theirs. */
const permissionSettings = (
  state: NamespaceState,
  granted: ReadonlyMap<string, ReadonlyArray<string>>
): ReadonlyArray<NamespaceSetting> => {
  const now = state.auth_policies?.namespace_auth ?? {}
  const roles = new Set([...granted.keys(), ...Object.keys(now)])
  return [...roles].toSorted().map((role): NamespaceSetting => {
    const to = granted.get(role)?.toSorted()
    const path = `permissions/${encodeURIComponent(role)}`
    return {
      name: `permission of ${role}`,
      from: now[role]?.toSorted(),
      to,
      request: to === undefined ? ["DELETE", path] : ["POST", path, to]
    }
  })
}

/** As JSON with sorted names, so that equal values are equal texts. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_name, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner
  ) ?? ""
const changed = (settings: ReadonlyArray<NamespaceSetting>) =>
  settings.filter(({ from, to }) => canonical(from) !== canonical(to))
const shown = ({ from, name, to }: NamespaceSetting): SettingChange => ({ name, from, to })

const tenantStep = async (admin: Admin, name: string, clusters: ReadonlyArray<string>): Promise<Step> => {
  const state = (await admin.call("GET", `tenants/${name}`, undefined, [404])) as
    | { readonly adminRoles?: ReadonlyArray<string>; readonly allowedClusters?: ReadonlyArray<string> }
    | undefined
  const allowed = state?.allowedClusters ?? []
  const to = [...new Set([...allowed, ...clusters])].toSorted()
  const settings = changed([{ name: "allowedClusters", from: state && allowed.toSorted(), to, request: ["", ""] }])
  const action = state === undefined ? "create" : settings.length > 0 ? "change" : "nothing"
  const body = { adminRoles: state?.adminRoles ?? [], allowedClusters: to }
  return {
    plan: { kind: "tenant", name, action, settings: settings.map(shown), note: undefined },
    run: async () => void (await admin.call(state === undefined ? "PUT" : "POST", `tenants/${name}`, body))
  }
}

const namespaceStep = async (
  admin: Admin,
  name: string,
  policies: NamespacePolicies,
  granted: ReadonlyMap<string, ReadonlyArray<string>>
): Promise<Step> => {
  const state = (await admin.call("GET", `namespaces/${name}`, undefined, [404])) as NamespaceState | undefined
  const settings = changed([...policySettings(state ?? {}, policies), ...permissionSettings(state ?? {}, granted)])
  const action = state === undefined ? "create" : settings.length > 0 ? "change" : "nothing"
  return {
    plan: { kind: "namespace", name, action, settings: settings.map(shown), note: undefined },
    run: async () => {
      if (state === undefined) await admin.call("PUT", `namespaces/${name}`, {}, [409])
      for (const { request } of settings) {
        const [method, path, body] = request
        await admin.call(method, `namespaces/${name}/${path}`, body)
      }
    }
  }
}

const topicStep = async (admin: Admin, name: string, partitions: number): Promise<Step> => {
  const topic = `persistent://${name}`
  const there = await orUndefined(admin.partitions(topic))
  const from = there === undefined ? undefined : Math.max(1, there)
  const refused =
    from === undefined || from === partitions
      ? undefined
      : `it has ${from} partition${from === 1 ? "" : "s"}, and ${partitions} are declared: a key's messages would be in two partitions; declare ${from}, or use a new topic`
  const action = from === undefined ? "create" : refused === undefined ? "nothing" : "refused"
  return {
    plan: {
      kind: "topic",
      name,
      action,
      settings: from === partitions ? [] : [{ name: "partitions", from, to: partitions }],
      note: refused
    },
    run: () => admin.create(topic, partitions)
  }
}

const failed = (operation: TenancyError["operation"]) => (cause: unknown) => {
  const { message, retryable } = failureOf(cause, operation)
  return new TenancyError({ operation, retryable, reason: message, cause })
}

/** How many requests run at once. */
const atOnce = 8
/** Runs `run` for each element, several at once, and returns the results in order. Fails with the first failure, once no request is under way. */
const forEach = <A, B>(operation: TenancyError["operation"], list: ReadonlyArray<A>, run: (one: A) => Promise<B>) =>
  Effect.forEach(
    list,
    (one) => Effect.uninterruptible(Effect.tryPromise({ try: () => run(one), catch: failed(operation) })),
    { concurrency: atOnce }
  )

/** The steps to take, tenant by tenant. */
const stepsOf = Effect.fnUntraced(function* (operation: TenancyError["operation"], admin: Admin, tenancy: Tenancy) {
  const { namespace, policies, publisher, tenants, topics } = tenancy
  const clusters =
    policies.clusters ??
    (yield* Effect.tryPromise({
      try: async () => (await admin.call("GET", "clusters")) as ReadonlyArray<string>,
      catch: failed(operation)
    }))
  const looks: Array<() => Promise<Step>> = []
  for (const { actions, name, role } of tenants) {
    const granted = new Map<string, ReadonlyArray<string>>([[role, actions]])
    // the relay reads the end of a topic before it sends to it
    if (publisher !== undefined) granted.set(publisher, ["consume", "produce"])
    looks.push(() => tenantStep(admin, name, clusters))
    looks.push(() => namespaceStep(admin, `${name}/${namespace}`, policies, granted))
    for (const topic of topics)
      for (const one of Tenancy.topicsOf(topic))
        looks.push(() => topicStep(admin, `${name}/${namespace}/${one}`, topic.partitions))
  }
  return yield* forEach(operation, looks, (look) => look())
})

/** Whether a resource differs from its declaration. */
export const differs = ({ action }: ResourcePlan): boolean => action !== "nothing"

/** What `apply` would do, tenant by tenant. Changes nothing. */
export const plan = (admin: Admin, tenancy: Tenancy): Effect.Effect<ReadonlyArray<ResourcePlan>, TenancyError> =>
  Effect.map(stepsOf("plan", admin, tenancy), (steps) => steps.map((step) => step.plan))

/** The order of the kinds: each needs those before it. */
const kinds: ReadonlyArray<ResourcePlan["kind"]> = ["tenant", "namespace", "topic"]

/**
 * Carries out what `plan` returns, and returns what was done. If one change is refused, nothing is done and the plan is returned. Fails with the first
 * request that a broker refuses: what was done before stays, and calling it again continues from there.
 */
export const apply = Effect.fnUntraced(function* (
  admin: Admin,
  tenancy: Tenancy
): Effect.fn.Return<ReadonlyArray<ResourcePlan>, TenancyError> {
  const steps = yield* stepsOf("apply", admin, tenancy)
  const plans = steps.map((step) => step.plan)
  if (plans.some(({ action }) => action === "refused")) return plans
  for (const kind of kinds) {
    const toDo = steps.filter((step) => step.plan.kind === kind && differs(step.plan))
    yield* forEach("apply", toDo, (step) => step.run())
  }
  return plans
})
