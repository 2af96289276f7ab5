// The public names, nothing else.
export { Aggregate, ConflictError, EventStore, type Rejection } from "./aggregate.ts"
export { Application } from "./application.ts"
export { Event, UnknownVersion, type EventType } from "./event.ts"
export type { Handler, Handlers, Lookup, Meta, Out, Writable } from "./handler.ts"
export { Projection, type FailurePolicy, type Rows, type Run } from "./projection.ts"
export { Column, InvalidName, ReadModel, type Table } from "./read-model.ts"
export { InvalidTopicName, Topic, UnknownEventType, type Compacted, type Sink, type Source } from "./topic.ts"
export { Agg, Window, type CalendarUnit, type Size } from "./window.ts"
