# Written by generate.py from the templates in infra/aws: `make docs`.

output "stack" {
  description = "The stack's output Stack."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "Stack", null)
}

output "bucket" {
  description = "data and outputs"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "Bucket", null)
}

output "input_bucket" {
  description = "more to read"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "InputBucket", null)
}

output "train_input" {
  description = "keys of InputBucket"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "TrainInput", null)
}

output "night_input" {
  description = "keys of InputBucket"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "NightInput", null)
}

output "train_reads" {
  description = "prefixes of the bucket"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "TrainReads", null)
}

output "train_writes" {
  description = "prefixes of the bucket"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "TrainWrites", null)
}

output "summarize_reads" {
  description = "prefixes of the bucket, * for any characters"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "SummarizeReads", null)
}

output "summarize_writes" {
  description = "prefixes of the bucket"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "SummarizeWrites", null)
}

output "repository" {
  description = "images train-<tag> and summarize-<tag>"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "Repository", null)
}

output "image_tag" {
  description = "the tag of the jobs' images"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "ImageTag", null)
}

output "queue" {
  description = "Spot first and on-demand second"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "Queue", null)
}

output "night_queue" {
  description = "the same machines for summaries"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "NightQueue", null)
}

output "nodes_queue" {
  description = "on-demand for several nodes"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "NodesQueue", null)
}

output "train_job_definition" {
  description = "The stack's output TrainJobDefinition."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "TrainJobDefinition", null)
}

output "summarize_job_definition" {
  description = "The stack's output SummarizeJobDefinition."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "SummarizeJobDefinition", null)
}

output "night_role" {
  description = "The stack's output NightRole."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "NightRole", null)
}

output "execution_role" {
  description = "The stack's output ExecutionRole."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "ExecutionRole", null)
}

output "train_nodes_job_definition" {
  description = "The stack's output TrainNodesJobDefinition."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "TrainNodesJobDefinition", null)
}

output "log_group" {
  description = "The stack's output LogGroup."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "LogGroup", null)
}

output "night" {
  description = "whether it is scheduled"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "Night", null)
}

output "night_schedule" {
  description = "The stack's output NightSchedule."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "NightSchedule", null)
}

output "schedule_group" {
  description = "The stack's output ScheduleGroup."
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "ScheduleGroup", null)
}

output "night_dead_letters" {
  description = "the queue of what the scheduler could not do"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "NightDeadLetters", null)
}

output "time_zone" {
  description = "of the night"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "TimeZone", null)
}

output "alarms" {
  description = "the topic of the alarms"
  value       = lookup(data.aws_cloudformation_stack.recap.outputs, "Alarms", null)
}
