// The public names of Millrace: everything that `import … from "millrace"` can name.
export { SubjectErased, SubjectKeysError } from "./erasure/errors.ts"
export { SubjectKeys, type ErasedSubject } from "./erasure/subject-keys.ts"
export {
  Aggregate,
  type Archived,
  type ExecuteError,
  type ExecuteOptions,
  type HistoryEvent
} from "./aggregate/aggregate.ts"
export type { DecideWithinOptions, DecisionWithin } from "./aggregate/boundary.ts"
export type { Executed } from "./aggregate/chain.ts"
export type { CommandContext } from "./aggregate/command.ts"
export {
  AppendTooLarge,
  EventTimeRefused,
  BoundaryMoved,
  CommandReused,
  EventStoreError,
  InlineFailed,
  InlineMissing,
  InvalidCommandId,
  InvalidStream,
  StreamClosed,
  TimerGone,
  VersionConflict
} from "./aggregate/errors.ts"
export {
  EventStore,
  type Answer,
  type Append,
  type Appended,
  type AppendError,
  type Boundary,
  type Expected,
  type Loaded,
  type LoadError,
  type NewEvent,
  type RecordedEvent
} from "./aggregate/event-store.ts"
export { AggregateFailed, InvalidCommand, StreamBusy, UnreadableEvent } from "./aggregate/failures.ts"
export { UnknownCommand, type Rejection, type RejectionClass } from "./model/aggregate.ts"
export { Application } from "./model/application.ts"
export { Bridge, type BridgeOptions } from "./bridge/definition.ts"
export type { BridgeRecord } from "./bridge/record.ts"
export { InvalidBridge, type HeaderFilter, type HeaderMapping, type Rule as BridgeRule } from "./bridge/rule.ts"
export { DeadLetters, type DeadLetterMessage } from "./model/dead-letter-topic.ts"
export { Event, UnfitUpcast, UnknownVersion, type EventType } from "./model/event.ts"
export {
  ConsumerBusy,
  FanOut,
  FanOutError,
  type Message,
  type StartAt,
  type SubscribeOptions,
  type SubscriptionType
} from "./subscription/fanout.ts"
export type { Handler, Handlers, HandlerTarget, Lookup, Meta, Out, Timer, Writable } from "./model/handler.ts"
export { OnceError, type Once } from "./subscription/once.ts"
export type { FailurePolicy } from "./model/failure-policy.ts"
export { Policy } from "./model/policy.ts"
export { Erasures } from "./model/erasures.ts"
export { Personal } from "./model/personal.ts"
export { Projection } from "./projection.ts"
export type { Rows, Run } from "./model/projection.ts"
export type { KeyBy, Rekeyed } from "./model/rekey.ts"
export { Column, InvalidName, ReadModel, type Table, type View } from "./model/read-model.ts"
export { Subscription, type Received, type RunOptions as SubscriptionRunOptions } from "./subscription/subscription.ts"
export {
  Tenancy,
  type TenancyOptions,
  type TenantTopic,
  type TopicOptions as TenantTopicOptions
} from "./model/tenancy.ts"
export {
  InvalidTopicName,
  Topic,
  UnknownEventType,
  type Compacted,
  type KafkaTopic,
  type LogOptions as TopicOptions,
  type Sink,
  type Source
} from "./model/topic.ts"
export type { CalendarUnit, WeekStart } from "./model/calendar.ts"
export { InvalidDeclaration } from "./model/declaration.ts"
export { InvalidOption } from "./model/options.ts"
export { Agg, Window, type CalendarOptions, type Size, type WindowOptions } from "./model/window.ts"
