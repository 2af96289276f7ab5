// The headers that a bridge itself writes. Rules cannot change them.

/** The prefix of all of them. */
export const bridgeHeaderPrefix = "millrace-bridge-"

/** The clusters that a record came through, separated by spaces, each as `BRIDGE@kafka:CLUSTER_ID` or `BRIDGE@pulsar:NAME`. */
export const originHeader = `${bridgeHeaderPrefix}origin`
/** The bridge stream that mirrored the record: the partition on Pulsar in full, or the name of the stream from a partition on Kafka. */
export const streamHeader = `${bridgeHeaderPrefix}stream`
/** The record's position in its source partition: an offset on Kafka, a formatted position on Pulsar. */
export const offsetHeader = `${bridgeHeaderPrefix}offset`
/** Marks a value on Pulsar that is an empty text, because there an empty payload alone means deletion. */
export const emptyHeader = `${bridgeHeaderPrefix}empty`
/** The event time of a record that Pulsar cannot represent: before 1970, not in whole milliseconds, or later than any date. */
export const eventTimeHeader = `${bridgeHeaderPrefix}event-time`

/** Of a dead letter: why the record could not be mirrored. */
export const errorHeader = `${bridgeHeaderPrefix}error`
/** Of a dead letter: the rule's name. */
export const ruleHeader = `${bridgeHeaderPrefix}rule`
/** Of a dead letter: the bridge's name. */
export const nameHeader = `${bridgeHeaderPrefix}name`
