# recap's stacks, as a module. The templates in infra/aws have every resource; this adds variables, outputs and
# their order: the later stacks take their parameters from the outputs of the first.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 3.39"
    }
  }
}

variable "name" {
  description = "Name of the stack, and of the image repository. The others are NAME-watch and NAME-follow."
  type        = string
  default     = "recap"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,60}$", var.name))
    error_message = "The value of name must be lower case letters, digits and hyphens: it names the image repository too."
  }
}

variable "tags" {
  description = "Tags of all stacks besides recap/stack. CloudFormation copies them to the resources that can have tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "follow" {
  description = "Whether there is the third stack: a watch after each night, and each week a challenger from feedback."
  type        = string
  default     = "off"
  nullable    = false

  validation {
    condition     = contains(["on", "off"], var.follow)
    error_message = "The value of follow must be one of on, off."
  }
}

variable "cloudformation_role_arn" {
  description = "Role that CloudFormation acts as. Null means the role that runs Terraform."
  type        = string
  default     = null
}

variable "timeout" {
  description = "Time that each stack may take to be created, changed or deleted. A change waits for running jobs."
  type        = string
  default     = "60m"
  nullable    = false
}

locals {
  tags = merge(var.tags, { "recap/stack" = var.name }) # as `make deploy` has it, for cost allocation
}

resource "aws_cloudformation_stack" "recap" {
  name          = var.name
  template_body = file("${path.module}/../aws/recap.yaml")
  parameters    = local.recap_parameters
  capabilities  = ["CAPABILITY_IAM"]
  iam_role_arn  = var.cloudformation_role_arn
  on_failure    = "DELETE" # of the first creation only; a failed change is rolled back
  tags          = local.tags

  timeouts {
    create = var.timeout
    update = var.timeout
    delete = var.timeout
  }

  lifecycle {
    # An imported stack has no on_failure: without this line, Terraform would delete and create it anew.
    ignore_changes = [on_failure]

    precondition {
      condition     = var.vpc_id != "" || length(concat(var.subnet_ids, var.security_group_ids)) == 0
      error_message = "The variables subnet_ids and security_group_ids need vpc_id."
    }
    precondition {
      condition     = var.vpc_id == "" || length(var.subnet_ids) > 0
      error_message = "The variable vpc_id needs subnet_ids."
    }
    precondition {
      condition     = var.input_bucket == "" || (var.train_input != "" && var.night_input != "")
      error_message = "The variable input_bucket needs train_input and night_input."
    }
  }
}

# The resource's own `outputs` are those before a change, even in a plan that changes the template. This reads them
# after it.
data "aws_cloudformation_stack" "recap" {
  name       = var.name
  depends_on = [aws_cloudformation_stack.recap]
}

resource "aws_cloudformation_stack" "watch" {
  name          = "${var.name}-watch"
  template_body = file("${path.module}/../aws/watch.yaml")
  parameters    = local.watch_parameters
  capabilities  = ["CAPABILITY_IAM"]
  iam_role_arn  = var.cloudformation_role_arn
  on_failure    = "DELETE"
  tags          = local.tags

  timeouts {
    create = var.timeout
    update = var.timeout
    delete = var.timeout
  }

  lifecycle {
    ignore_changes = [on_failure]
  }
}

# Its image is pushed by `make follow IMAGE_ONLY=1`, which reads the tag from the first stack.
resource "aws_cloudformation_stack" "follow" {
  count = var.follow == "on" ? 1 : 0

  name          = "${var.name}-follow"
  template_body = file("${path.module}/../aws/follow.yaml")
  parameters    = local.follow_parameters
  capabilities  = ["CAPABILITY_IAM"]
  iam_role_arn  = var.cloudformation_role_arn
  on_failure    = "DELETE"
  tags          = local.tags

  timeouts {
    create = var.timeout
    update = var.timeout
    delete = var.timeout
  }

  lifecycle {
    ignore_changes = [on_failure]
  }
}
