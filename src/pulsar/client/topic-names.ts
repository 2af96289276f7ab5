// Names of topics on Pulsar, where each partition of a topic is a topic with a name of its own. Pure.
import { defaults, type PulsarOptions } from "./options.ts"

/**
 * The full name of a topic, `persistent://TENANT/NAMESPACE/TOPIC`, by the tenant and namespace of the options or their defaults. A name that is full
 * already stays as it is.
 */
export const topicName = ({ namespace, tenant }: Pick<PulsarOptions, "tenant" | "namespace">, topic: string): string =>
  topic.includes("://")
    ? topic
    : `persistent://${tenant ?? defaults.tenant}/${namespace ?? defaults.namespace}/${topic}`
/** The tenant and the namespace of a full name. */
export const namespaceOf = (fullName: string): { readonly tenant: string; readonly namespace: string } => {
  const [, , tenant = "", namespace = ""] = fullName.split("/")
  return { tenant, namespace }
}
/** The topics that a topic with so many partitions consists of, in order. With 0 it is not partitioned and consists of itself. */
export const partitionTopics = (topic: string, count: number): ReadonlyArray<string> =>
  count === 0 ? [topic] : Array.from({ length: count }, (_, i) => `${topic}-partition-${i}`)
/** The topic that a partition belongs to. The name of any other topic stays as it is. */
export const withoutPartition = (topic: string): string => topic.replace(/-partition-\d+$/, "")
/** The name without domain, tenant, namespace and partition. */
export const localName = (topic: string): string => withoutPartition(topic).replace(/^.*\//, "")
