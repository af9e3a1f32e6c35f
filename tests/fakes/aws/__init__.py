"""AWS for tests: the HyperPod stand-in, moto for the rest, one gate before both.

    with Aws(Cut(at=7, do=process.kill), allow=policy, quotas={"ml.p5.48xlarge": 2}) as aws:
        aws.environment                     # for subprocesses: endpoints, keys, Region
        aws.client("s3")                    # boto3 through the gate, as a user
        aws.stage.client("iam")             # behind it: sets the stage, is not written down
        aws.control                         # the HyperPod stand-in (tests/fakes/hyperpod)
        aws.calls, aws.gate.named("s3:*"), aws.gate.actions(), aws.gate.allow
        aws.eks.addon("name", "vpc-cni", "v1.20.4-eksbuild.2", enableNetworkPolicy="false")
        aws.eks.clusters["name"] = {"version": "1.27"}  # unlike moto says
        aws.prices.hourly["ml.p5.48xlarge"] = 60.5
        aws.runtime_url = runtime.url       # a Runtime of tests/fakes/runtime.py, not moto, answers for endpoints
        aws.stacks.fail("hyperpod-pd", ("NestedStack",), "AWS::SageMaker::Cluster", "what went wrong")

moto has S3, IAM (with AWS's managed policies), STS, EC2, EKS clusters, CloudFormation, CloudWatch and its logs.
Stand-ins beside it, because it lacks them: Service Quotas (quotas.py), EKS add-ons, access entries and pod identities
(eks.py), prices (prices.py), stacks that failed levels below (stacks.py), IAM's policy simulation and the caller's
identity (identity.py). CreateCluster looks at moto: roles, subnets, security groups and the EKS cluster have to be
there, and so have the lifecycle scripts when a node starts; what they print is in CloudWatch's logs. moto's state is
the process's: one at a time.
"""

from tests.fakes.aws.servers import Aws

__all__ = ["Aws"]
