output "runs_bucket" {
  description = "MLFLOW_ARTIFACTS_DESTINATION is s3:// and this."
  value       = aws_s3_bucket.this["runs"].bucket
}

output "data_bucket" {
  description = "dvc remote add --default store s3://THIS/iadr1"
  value       = aws_s3_bucket.this["data"].bucket
}

output "database_host" {
  description = "PGHOST of infra/k8s/base/settings.env."
  value       = aws_db_instance.this.address
}

output "database_secret" {
  description = "The secret of Secrets Manager that holds the database's password."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "cluster" {
  description = "aws eks update-kubeconfig --name THIS"
  value       = aws_eks_cluster.this.name
}

output "workspace" {
  description = "fileSystemId of infra/k8s/overlays/aws/storage.yaml."
  value       = aws_efs_file_system.workspace.id
}

output "images" {
  description = "In infra/k8s/overlays/aws: kustomize edit set image iadr1=THIS"
  value       = aws_ecr_repository.this.repository_url
}
